import { expect, test } from 'vitest'
import { publish, readJob, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { claimUnderWay, gatewayFor, listeningSessions, noBackstop } from '../support/gateway.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { jobOf, jobsOf, until } from '../support/http.ts'
import type { Api } from '../support/http.ts'
import { openRaw } from '../support/http-raw.ts'
import { startGatewayProcess } from '../support/process.ts'

const database = useDatabase()

const gateways = async () =>
  (await database.query<{ id: number }>('select id from pullgate.gateway order by id')).map(({ id }) => id)

const endListeners = () =>
  database.query(`select pg_terminate_backend(pid, 5000) from (${listeningSessions}) session`)

/** Jobs that are on their way to a client that hangs, so that none is confirmed; the end of no lease helps. */
async function hangingDelivery(gateway: Api, topic: string, onLost: readonly string[]): Promise<string[]> {
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  // More than the socket buffers of both sides hold.
  const spec = JSON.stringify('x'.repeat(900_000))
  const options = onLost.flatMap((on_lost) => Array<string>(6).fill(on_lost))
  const ids = await Promise.all(options.map((on_lost) => publish(database, topic, { spec, on_lost })))
  const client = await openRaw(gateway.url, { reading: false })
  client.pull(subscription, `?max=${ids.length}&wait=50`)
  await client.answered()
  await database.query(
    `update pullgate.job set lease_ends_at = lease_ends_at + interval '1 day', lease_check_at = lease_check_at + interval '1 day'
      where id = any ($1) and state = 'running'`,
    [ids],
  )
  return ids
}

test('what killed gateways had not confirmed goes back, and is handed out by another under requeue, never under orphan', async () => {
  const predecessor = await startGatewayProcess(database)
  const early = await hangingDelivery(predecessor, 'died-before', ['requeue'])
  predecessor.signal('SIGKILL')
  await predecessor.exited
  const survivor = await gatewayFor(database)
  const peer = await startGatewayProcess(database)
  const late = await hangingDelivery(peer, 'died-beside', ['requeue', 'orphan'])
  const [requeued, orphans] = [late.slice(0, 6), late.slice(6)]
  peer.signal('SIGKILL')
  const pulled = ['died-before', 'died-beside'].map(async (topic) => {
    const subscription = await survivor.subscribe(topic)
    const ids: string[] = []
    while (ids.length < 6) {
      ids.push(...jobsOf(await survivor.pull(subscription, { wait: 50, max: 12 })).map(({ id }) => id))
    }
    return ids.sort()
  })
  expect(await Promise.all(pulled)).toEqual([early.toSorted(), requeued.toSorted()])
  expect(await readJob(database, early[0] ?? '')).toMatchObject({
    attempts: 2,
    log: [{ outcome: 'in doubt' }],
  })
  for (const id of orphans) expect(await stateOf(database, id)).toBe('orphaned')
  expect(await survivor.metric('pullgate_jobs_returned_total', { reason: 'gateway_died' })).toBe(18)
  expect(await gateways()).toHaveLength(1)
})

test('a gateway that loses its session has another id, hands out nothing claimed before, and goes on', async () => {
  const gateway = await gatewayFor(database, noBackstop)
  const [old] = await gateways()
  const hanging = await hangingDelivery(gateway, 'session-lost-held', ['orphan'])
  const subscription = await gateway.subscribe('session-lost')
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const { id, release } = await claimUnderWay(database, 'session-lost')
  expect(await endListeners()).toHaveLength(1)
  await until(async () => expect(await gateways()).toHaveLength(2))
  await release()
  // The claim that was under way has been given back; this is another one.
  expect(jobOf(await answer)).toMatchObject({ id, attempt: 1 })
  expect(await gateway.metric('pullgate_jobs_returned_total', { reason: 'session_lost' })).toBe(1)
  await until(async () => expect(await gateways()).not.toContain(old))
  const [next] = await gateways()
  for (const id of hanging) {
    expect(await readJob(database, id)).toMatchObject({ state: 'running', gateway_id: next, attempts: 1 })
  }
})

test('a gateway whose session ended without a word finds its own lock free', async () => {
  const proxy = await blackHoleProxy(database.url)
  const settings = { PULLGATE_LISTEN_DATABASE_URL: proxy.url, PULLGATE_BACKSTOP_MS: 100 }
  const gateway = await startGatewayProcess(database, settings)
  const [old] = await gateways()
  const answer = gateway.pull(await gateway.subscribe('half-open'), { wait: 50 })
  await gateway.parked(1)
  proxy.swallow()
  await endListeners()
  await gateway.printed(/the lock of this gateway was free/)
  proxy.restore()
  await until(async () => expect(await gateways()).not.toContain(old))
  const id = await publish(database, 'half-open')
  expect(jobOf(await answer).id).toBe(id)
})

test('a clean stop leaves no gateway behind', async () => {
  const gateway = await gatewayFor(database)
  const before = await gateways()
  expect(await gateway.stop('test')).toBe(true)
  expect(await gateways()).toHaveLength(before.length - 1)
})
