import { expect, test } from 'vitest'
import { systemClock } from '../../src/domain/clock.ts'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, listeningSessions, noBackstop, quiet } from '../support/gateway.ts'
import type { Settings, TestGateway } from '../support/gateway.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { jobOf, until } from '../support/http.ts'
import { listenerOn } from '../support/listener.ts'

const database = useDatabase()

const sessions = `select count(*)::integer from pg_stat_activity
  where application_name = 'listener-test' and datname = current_database()`

async function parkedPull(settings: Settings, topic: string) {
  const gateway = await gatewayFor(database, settings)
  const subscription = await gateway.subscribe(topic)
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const claimed = (cause: string) => gateway.metric('pullgate_claimed_jobs_total', { topic, cause })
  return { gateway, subscription, answer, claimed }
}

// Before a listener is cut off the topic has to be quiet: else a look that is under way might find the job.
async function connected(gateway: TestGateway, flag: 0 | 1): Promise<void> {
  await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(flag))
}

test('after its session was terminated the gateway listens again, and no job is missed', async () => {
  const { gateway, answer, claimed } = await parkedPull(noBackstop, 'terminated')
  await connected(gateway, 1)
  // The session has ended when this transaction commits, and may be back or not.
  const ended = await database.query(
    `select pg_terminate_backend(pid, 5000), pullgate.publish('terminated', '1'::text) from (${listeningSessions}) session`,
  )
  expect(ended).toHaveLength(1)
  jobOf(await answer)
  await connected(gateway, 1)
  expect(await gateway.metric('pullgate_listener_losses_total')).toBe(1)
  expect(await claimed('backstop')).toBe(0)
})

test('what was published while nobody listened is delivered by the resync; the metric shows the loss', async () => {
  const proxy = await blackHoleProxy(database.url)
  const settings = { ...noBackstop, PULLGATE_LISTEN_DATABASE_URL: proxy.url }
  const { gateway, subscription, answer, claimed } = await parkedPull(settings, 'nobody-listens')
  await quiet(gateway, subscription)
  proxy.cut()
  await connected(gateway, 0)
  const id = await publish(database, 'nobody-listens')
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  proxy.restore()
  expect(jobOf(await answer).id).toBe(id)
  expect(await claimed('resync')).toBe(1)
  await connected(gateway, 1)
})

test('while nobody listens the backstop delivers', async () => {
  const proxy = await blackHoleProxy(database.url)
  const settings = { PULLGATE_BACKSTOP_MS: 100, PULLGATE_LISTEN_DATABASE_URL: proxy.url }
  const { gateway, subscription, answer, claimed } = await parkedPull(settings, 'away')
  await quiet(gateway, subscription)
  proxy.cut()
  await connected(gateway, 0)
  const first = await publish(database, 'away')
  // Found when the gateway has waited for a session long enough.
  expect(jobOf(await answer).id).toBe(first)
  const next = await gateway.subscribe('away')
  const again = gateway.pull(next, { wait: 50 })
  await gateway.parked(1, next)
  const id = await publish(database, 'away')
  expect(jobOf(await again).id).toBe(id)
  expect(await claimed('backstop')).toBe(1)
  await connected(gateway, 0)
})

// Times of connecting and of heartbeats leave a busy machine seconds to answer in.

test('a half-open connection is found by the heartbeat, cut, and replaced', async () => {
  const proxy = await blackHoleProxy(database.url)
  const watched = listenerOn(proxy.url, { heartbeatMs: 500, connectTimeoutMs: 5_000 })
  await watched.listener.start()
  await until(() => expect(watched.events).toContain('listener heartbeat'))
  expect(watched.resyncs).toBe(1)
  proxy.swallow()
  await until(() => expect(watched.listener.connected).toBe(false))
  expect(watched.reasons[0]).toBe('nothing came back in 2 heartbeats')
  proxy.restore()
  await until(() => expect(watched.listener.connected).toBe(true))
  expect(watched.resyncs).toBe(2)
  await database.query(`select pg_notify('pullgate_wake', 'after')`)
  await until(() => expect(watched.heard).toEqual(['after']))
  await until(() => expect(proxy.open).toBe(1))
})

test('a server that accepts and stays silent does not hold a reconnect for ever', async () => {
  const proxy = await blackHoleProxy(database.url)
  const watched = listenerOn(proxy.url, { heartbeatMs: 500, connectTimeoutMs: 2_000 })
  await watched.listener.start()
  proxy.swallow()
  await until(() => expect(watched.reasons).toHaveLength(3))
  expect(watched.reasons[1]).toBe('connecting took too long')
  expect(proxy.accepted).toBe(3)
  proxy.restore()
  await until(() => expect(watched.listener.connected).toBe(true))
})

test('close during the pause before a reconnect leaves nothing running', async () => {
  const proxy = await blackHoleProxy(database.url)
  // The first reconnect comes at once and fails; the pause after it is half a second.
  const clock = { ...systemClock, random: () => 1 }
  const watched = listenerOn(proxy.url, { clock, connectTimeoutMs: 2_000, heartbeatMs: 300 })
  await watched.listener.start()
  proxy.swallow()
  await until(() => expect(watched.reasons).toHaveLength(2))
  proxy.restore()
  await watched.listener.close()
  const then = [proxy.accepted, watched.events.length]
  await until(() => expect(proxy.open).toBe(0))
  // Longer than the pause: a reconnect that still ran would have come by now.
  await new Promise((resolve) => setTimeout(resolve, 700))
  expect([proxy.accepted, watched.events.length]).toEqual(then)
  expect([watched.listener.connected, watched.resyncs, await database.value(sessions)]).toEqual([false, 1, 0])
})

test('close while a connection is being made cuts that as well', async () => {
  const proxy = await blackHoleProxy(database.url)
  const watched = listenerOn(proxy.url, { connectTimeoutMs: 30_000, heartbeatMs: 30 })
  await watched.listener.start()
  proxy.swallow()
  await until(() => expect(proxy.accepted).toBe(2))
  await watched.listener.close()
  await until(() => expect(proxy.open).toBe(0))
  expect(watched.resyncs).toBe(1)
})

test('a first connection that fails rejects, and is not tried again', async () => {
  const nobody = new URL(database.url)
  nobody.port = '1'
  await expect(listenerOn(nobody.href).listener.start()).rejects.toThrow('ECONNREFUSED')
  const proxy = await blackHoleProxy(database.url)
  const wrong = new URL(proxy.url)
  wrong.pathname = '/no_such_database'
  const watched = listenerOn(wrong.href)
  await expect(watched.listener.start()).rejects.toThrow('no_such_database')
  await until(() => expect(proxy.open).toBe(0))
  expect([proxy.accepted, watched.listener.connected, watched.events]).toEqual([1, false, []])
  proxy.swallow()
  const silent = listenerOn(proxy.url, { connectTimeoutMs: 50 })
  await expect(silent.listener.start()).rejects.toThrow('connecting took too long')
})

test('no payload on the channel harms anything', async () => {
  const gateway = await gatewayFor(database, noBackstop)
  const topic = 'garbage'
  const subscription = await gateway.subscribe(topic)
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const payloads = [
    ...['', ' ', '{"not":', 'null', '[]', 'x'.repeat(7_999), '9'.repeat(20), '-', '--1', '1e3', '1; drop'],
    ...[
      'ended:',
      `ended:${'-'.repeat(36)}`,
      `ended:${'f'.repeat(36)}`,
      `ended:${subscription}x`,
      'DUE',
      '🚀',
    ],
    ...['due', '-9223372036854775808', '__proto__', 'constructor'],
  ]
  for (const payload of payloads) await database.query('select pg_notify($1, $2)', ['pullgate_wake', payload])
  await until(async () => expect(await gateway.metric('pullgate_notifications_total')).toBe(payloads.length))
  expect(await gateway.metric('pullgate_notifications_total', { result: 'invalid' })).toBeGreaterThan(10)
  const id = await publish(database, topic)
  expect(jobOf(await answer).id).toBe(id)
  expect(await gateway.metric('pullgate_listener_losses_total')).toBe(0)
})

test('a flood of notifications is read to its end, so that it does not stay in the queue of the server', async () => {
  const gateway = await gatewayFor(database, noBackstop)
  await database.query(
    `select count(pg_notify('pullgate_wake', repeat('x', 1000) || n)) from generate_series(1, 20000) n`,
  )
  const invalid = () => gateway.metric('pullgate_notifications_total', { result: 'invalid' })
  await until(async () => expect(await invalid()).toBe(20_000))
  await until(async () => expect(await database.value('select pg_notification_queue_usage()')).toBe(0))
  expect(await gateway.metric('pullgate_listener_losses_total')).toBe(0)
})

test('a forged end of a subscription does not end its pulls', async () => {
  const gateway = await gatewayFor(database, noBackstop)
  const subscription = await gateway.subscribe('forged')
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  await database.query('select pg_notify($1, $2)', ['pullgate_wake', `ended:${subscription}`])
  await until(async () => expect(await gateway.metric('pullgate_notifications_total')).toBe(1))
  const id = await publish(database, 'forged')
  expect(jobOf(await answer).id).toBe(id)
})
