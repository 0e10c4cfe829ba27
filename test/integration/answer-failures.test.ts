import { expect, onTestFinished, test, vi } from 'vitest'
import { readJob } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { noBackstop, useGateway } from '../support/gateway.ts'
import { expectProblem, jobOf, jobsOf, until } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database, noBackstop)

/** As a job whose answer is longer than a string can be: of what has this traceparent no text can be made. */
const unsayable = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

function breakText(): () => void {
  const { stringify } = JSON
  const spy = vi.spyOn(JSON, 'stringify').mockImplementation(((value: unknown, ...more: []) => {
    if ((value as { traceparent?: unknown } | undefined)?.traceparent === unsayable)
      throw new RangeError('Invalid string length')
    return stringify(value, ...more)
  }) as typeof JSON.stringify)
  const mend = () => {
    spy.mockRestore()
  }
  onTestFinished(mend)
  return mend
}

/** Jobs of one transaction, and so of one claim: the first of them is unsayable. */
async function publishTogether(topic: string, count: number): Promise<string[]> {
  const rows = await database.query<{ id: string }>(
    `select pullgate.publish($1, '{}'::text, traceparent => case when n = 1 then $3::text end) as id
      from generate_series(1, $2::integer) n`,
    [topic, count, unsayable],
  )
  return rows.map(({ id }) => id)
}

test.each(['auto', 'explicit'])(
  'a job that cannot be sent goes back without an attempt, its pull is told, and the other pull of the claim gets its job; %s',
  async (ack) => {
    const topic = `unsayable-${ack}`
    const subscription = await gateway.subscribe(topic, { ack })
    const mend = breakText()
    const first = gateway.pull(subscription, { wait: 50 })
    await gateway.parked(1)
    const second = gateway.pull(subscription, { wait: 50 })
    await gateway.parked(2)
    const [poison, good] = await publishTogether(topic, 2)
    expect(jobOf(await second).id).toBe(good)
    const refused = await first
    expectProblem(refused, 500, 'internal')
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    await until(async () =>
      expect(await readJob(database, poison ?? '')).toMatchObject({
        state: 'ready',
        attempts: 0,
        deliveries: 0,
      }),
    )
    expect(await gateway.metric('pullgate_jobs_returned_total', { reason: 'answer_failed' })).toBeGreaterThan(
      0,
    )
    mend()
    expect(jobOf(await gateway.pull(subscription, { wait: 5 }))).toMatchObject({ id: poison, attempt: 1 })
  },
)

test('a batch is answered with the jobs that can be sent together, the others go back, and more are announced', async () => {
  const topic = 'unsayable-batch'
  const subscription = await gateway.subscribe(topic)
  // Behind the others, so that the first half of the batch is free of it.
  const ids = [
    await gateway.publish(topic),
    await gateway.publish(topic),
    ...(await publishTogether(topic, 2)),
  ]
  const mend = breakText()
  const half = await gateway.pull(subscription, { max: 4, wait: 5 })
  expect([jobsOf(half).map(({ id }) => id), half.body.more]).toEqual([ids.slice(0, 2), true])
  for (const id of ids.slice(2))
    await until(async () =>
      expect(await readJob(database, id)).toMatchObject({ state: 'ready', attempts: 0 }),
    )
  mend()
  const rest = await gateway.pull(subscription, { max: 4, wait: 5 })
  expect(
    jobsOf(rest)
      .map(({ id }) => id)
      .toSorted(),
  ).toEqual(ids.slice(2).toSorted())
})
