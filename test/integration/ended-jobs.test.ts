import { expect, test } from 'vitest'
import { ending } from '../../src/db/ended-jobs.ts'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { useGateway } from '../support/gateway.ts'
import { jobOf, jobsOf, until } from '../support/http.ts'
import type { Job } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database)

async function expectEnded(topic: string, expected: Readonly<Record<string, number>>): Promise<void> {
  const states = ['succeeded', 'failed', 'delivered', 'cancelled', 'expired']
  await until(async () => {
    const counts = await Promise.all(
      states.map((state) => gateway.metric('pullgate_jobs_ended_total', { topic, state })),
    )
    const found = Object.fromEntries(states.map((state, index) => [state, counts[index]]))
    expect(found).toEqual({ ...Object.fromEntries(states.map((state) => [state, 0])), ...expected })
  })
}

test('ends by lease count once each, by their topic and state, settled one by one, together or again', async () => {
  const topics = ['ended-a', 'ended-b']
  const subscription = await gateway.subscribe(topics[0] ?? '', {})
  const other = await gateway.subscribe(topics[1] ?? '')
  for (let n = 0; n < 5; n += 1) await publish(database, 'ended-a')
  await publish(database, 'ended-b')
  const jobs = jobsOf(await gateway.pull(subscription, { max: 5, wait: 5 }))
  const foreign = jobOf(await gateway.pull(other, { wait: 5 }))
  const [one, two, three, failing, cancelled] = jobs as [Job, Job, Job, Job, Job]
  const complete = [one, two, foreign].map(({ id, lease }) => ({ id, lease }))
  await gateway.pull(subscription, { max: 1, wait: 0, json: { complete } })
  await gateway.settle(one, 'complete')
  await gateway.settle(three, 'complete')
  await gateway.settle(failing, 'fail', { error: 'no', retry: false })
  await gateway.request('POST', `/jobs/${cancelled.id}/cancel`)
  await gateway.settle(cancelled, 'release')
  await expectEnded('ended-a', { succeeded: 3, failed: 1, cancelled: 1 })
  await expectEnded('ended-b', { succeeded: 1 })
})

test('so do deliveries, expiries, lost leases, and cancels of jobs that wait', async () => {
  const topic = 'ended-alone'
  const auto = await gateway.subscribe(topic, { ack: 'auto' })
  const explicit = await gateway.subscribe(topic, { leaseSeconds: 10 })
  await publish(database, topic)
  await gateway.pull(auto, { wait: 5 })
  const waiting = await gateway.publish(topic, '{}', { delaySeconds: 3600 })
  await gateway.request('POST', `/jobs/${waiting}/cancel`)
  await database.query(
    `select pullgate.publish($1, '{}'::text, delay => '1 hour', expires_at => clock_timestamp() + interval '0.1 s')`,
    [topic],
  )
  const lost = await gateway.publish(topic, '{}', { onLost: 'fail' })
  expect(jobOf(await gateway.pull(explicit, { wait: 5 })).id).toBe(lost)
  await database.query(
    'update pullgate.job set lease_ends_at = clock_timestamp(), lease_check_at = clock_timestamp() where id = $1',
    [lost],
  )
  await expectEnded(topic, { delivered: 1, cancelled: 1, expired: 1, failed: 1 })
})

test('a job that is released, retried or lost under requeue has not ended', async () => {
  const topic = 'ended-not'
  const subscription = await gateway.subscribe(topic)
  await publish(database, topic)
  await gateway.settle(jobOf(await gateway.pull(subscription, { wait: 5 })), 'release')
  const job = jobOf(await gateway.pull(subscription, { wait: 5 }))
  await gateway.settle(job, 'fail', { error: 'no', retryAfterSeconds: 0 })
  await gateway.settle(jobOf(await gateway.pull(subscription, { wait: 5 })), 'complete')
  await expectEnded(topic, { succeeded: 1 })
})

test('only the first row of a batch carries the ends of all, and the rows keep their order', async () => {
  const topic = 'ended-rows'
  const subscription = await gateway.subscribe(topic)
  for (let n = 0; n < 4; n += 1) await publish(database, topic)
  const jobs = jobsOf(await gateway.pull(subscription, { max: 4, wait: 5 })).toReversed()
  // The second settle has a stale lease.
  const leases = jobs.map(({ lease }, index) =>
    index === 1 ? '00000000-0000-4000-8000-000000000000' : lease,
  )
  const { text } = ending({
    name: 'settle_completes',
    text: 'select * from pullgate.settle_completes($1::bigint[], $2::uuid[], $3::text[])',
  })
  const rows = await database.query(text, [jobs.map(({ id }) => id), leases, jobs.map(() => null)])
  expect(rows.map(({ status }) => String(status))).toEqual(['ok', 'lost', 'ok', 'ok'])
  expect(rows[0]?.ended_jobs).toMatch(/^succeeded( -?\d+)\1\1;$/)
  expect(rows.slice(1).map(({ ended_jobs }) => ended_jobs)).toEqual([null, null, null])
})
