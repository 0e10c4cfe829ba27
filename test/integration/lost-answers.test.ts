import { expect, test } from 'vitest'
import { publish, readJob, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { claimsHeld, claimUnderWay, gatewayFor, noBackstop } from '../support/gateway.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { jobOf, until } from '../support/http.ts'

const database = useDatabase()

/** A parked pull of a gateway whose statements go through the proxy; what it listens on does not. */
async function parkedBehindProxy(topic: string, ack: 'auto' | 'explicit') {
  const proxy = await blackHoleProxy(database.url)
  const settings = { ...noBackstop, PULLGATE_LISTEN_DATABASE_URL: database.url }
  const gateway = await gatewayFor(proxy, settings)
  const subscription = await gateway.subscribe(topic, {
    ack,
    ...(ack === 'explicit' ? { leaseSeconds: 3600 } : {}),
  })
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const returned = () => gateway.metric('pullgate_jobs_returned_total', { reason: 'answer_lost' })
  return { proxy, answer, returned }
}

/** A job, and a claim of it that goes on when released; what gives back is not in its way. */
async function claimHeldUp(topic: string): Promise<{ id: string; release: () => Promise<unknown> }> {
  const session = await database.session()
  await session.query('begin; set local pullgate.notify = off')
  const id = await publish(session, topic)
  await session.query('lock table pullgate.lane in access exclusive mode')
  await database.query('select pullgate.wake($1)', [topic])
  await claimsHeld(database, 1)
  return { id, release: () => session.query('commit') }
}

for (const ack of ['explicit', 'auto'] as const) {
  test(`${ack} ack: a job whose claim was answered into the void is given back, and handed out`, async () => {
    const topic = `void-${ack}`
    const { proxy, answer, returned } = await parkedBehindProxy(topic, ack)
    proxy.mute()
    const id = await publish(database, topic)
    await database.query('select pullgate.wake($1)', [topic])
    await until(async () => expect(await stateOf(database, id)).toBe('running'))
    const { lease } = await readJob(database, id)
    proxy.cut()
    proxy.restore()
    expect(jobOf(await answer)).toMatchObject({ id, attempt: 1 })
    expect(await returned()).toBe(1)
    expect((await readJob(database, id))['lease']).not.toBe(lease)
  })
}

test('a job whose claim commits after its gateway has given up on it is given back then', async () => {
  const { proxy, answer, returned } = await parkedBehindProxy('late-commit', 'explicit')
  const { id, release } = await claimHeldUp('late-commit')
  proxy.cut()
  proxy.restore()
  // It has looked, and found nothing yet.
  await until(async () => {
    const looks = await database.value(
      `select count(*)::integer from pg_stat_activity
        where query like '%give_back_unheard%' and state = 'idle' and datname = current_database()`,
    )
    expect(looks).toBeGreaterThan(0)
  })
  expect(await returned()).toBe(0)
  await release()
  expect(jobOf(await answer)).toMatchObject({ id, attempt: 1 })
  expect(await returned()).toBe(1)
})

test('auto ack: a job whose claim was answered late is handed out as claimed only then', async () => {
  const gateway = await gatewayFor(database, noBackstop)
  const subscription = await gateway.subscribe('late-answer', { ack: 'auto' })
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const { id, release } = await claimUnderWay(database, 'late-answer')
  await until(async () => {
    const late = await database.value(
      `select bool_and(query_start < clock_timestamp() - interval '1.1 seconds') from pg_stat_activity
        where wait_event_type = 'Lock' and query like '%pullgate.claim(%' and datname = current_database()`,
    )
    expect(late).toBe(true)
  })
  const before = await database.value('select clock_timestamp()')
  await release()
  expect(jobOf(await answer)).toMatchObject({ id, attempt: 1 })
  const sql = `select h.claimed_at > $2 from (
      select id, claimed_at from pullgate.job union all select id, claimed_at from pullgate.history) h where h.id = $1`
  expect(await database.value(sql, [id, before])).toBe(true)
  expect(await gateway.metric('pullgate_jobs_returned_total')).toBe(0)
})
