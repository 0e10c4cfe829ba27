import { expect, inject, test } from 'vitest'
import { systemClock } from '../../src/domain/clock.ts'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { gatewayFor, noBackstop } from '../support/gateway.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { jobOf, until } from '../support/http.ts'
import { listenerOn } from '../support/listener.ts'
import { runOnce } from '../support/postgres.ts'
import { transactionPooler } from '../support/transaction-pooler.ts'

// A loss of the listening session names its cause; where notifications cannot be heard, the gateway polls.

const database = useDatabase()

const notifyFromElsewhere = (channel: string, payload: string) =>
  database.query('select pg_notify($1, $2)', [channel, payload])

test('a session that the server terminates is lost to the server', async () => {
  const watched = listenerOn(database.url)
  await watched.listener.start()
  expect(watched.listener.lostTo).toBeUndefined()
  await database.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = 'listener-test' and datname = current_database()`,
  )
  await until(() => expect(watched.resyncs).toBe(2))
  expect(watched.causes).toEqual(['server'])
  expect(watched.listener.lostTo).toBeUndefined()
})

test('a reset connection and a refused one are lost to the network', async () => {
  const proxy = await blackHoleProxy(database.url)
  const watched = listenerOn(proxy.url)
  await watched.listener.start()
  proxy.reset()
  await until(() => expect(watched.resyncs).toBe(2))
  expect(watched).toMatchObject({ causes: ['network'], reasons: ['read ECONNRESET'] })
})

test('a session that the server refuses is lost to the server, with its reason', async () => {
  const proxy = await blackHoleProxy(database.url)
  const watched = listenerOn(proxy.url)
  await watched.listener.start()
  const name = new URL(database.url).pathname.slice(1)
  await runOnce(inject('serverUrl'), `alter database ${name} allow_connections false`)
  proxy.reset()
  await until(() => expect(watched.causes).toEqual(['network', 'server', 'server']))
  expect(watched.reasons.at(-1)).toMatch(/not currently accepting connections/)
  expect(watched.listener.lostTo).toBe('server')
  await runOnce(inject('serverUrl'), `alter database ${name} allow_connections true`)
  await until(() => expect(watched.listener.connected).toBe(true))
})

test('a half-open connection is found within 15 s, and is lost to the network', async () => {
  const proxy = await blackHoleProxy(database.url)
  const clock = createFakeClock()
  const watched = listenerOn(proxy.url, { clock })
  await watched.listener.start()
  clock.advance(5_000)
  // The worst case: it breaks just after a heartbeat was answered.
  await until(() => expect(watched.events).toContain('listener heartbeat'))
  proxy.swallow()
  clock.advance(14_999)
  expect(watched.listener.connected).toBe(true)
  clock.advance(1)
  expect(watched).toMatchObject({ causes: ['network'], losses: 1 })
})

test('behind a transaction pooler it starts, deaf, and says so once', async () => {
  const pooler = await transactionPooler(database.url)
  const retries: (() => void)[] = []
  const clock = {
    ...systemClock,
    after(ms: number, run: () => void) {
      if (ms < 300_000) return systemClock.after(ms, run)
      retries.push(run)
      return { cancel: () => undefined }
    },
  }
  const watched = listenerOn(pooler.url, { clock, heartbeatMs: 100, notifyFromElsewhere })
  await watched.listener.start()
  expect(watched).toMatchObject({ causes: ['pooler'], resyncs: 0, losses: 1 })
  expect(watched.reasons[0]).toMatch(/transaction pooler.*PULLGATE_LISTEN_DATABASE_URL/)
  expect([watched.listener.connected, watched.listener.lostTo]).toEqual([false, 'pooler'])

  retries[0]?.()
  await until(() => expect(retries).toHaveLength(2))
  expect(watched).toMatchObject({ causes: ['pooler'], losses: 1 })
  // Somebody has mended the pooler.
  pooler.shared = false
  retries[1]?.()
  await until(() => expect(watched.listener.connected).toBe(true))
  expect(watched.listener.lostTo).toBeUndefined()
})

test('a listener of another database than the jobs is told apart as well', async () => {
  const elsewhere = new URL(database.url)
  elsewhere.pathname = '/postgres'
  const watched = listenerOn(elsewhere.href, { heartbeatMs: 100, notifyFromElsewhere })
  await watched.listener.start()
  expect(watched.causes).toEqual(['pooler'])
  expect(watched.reasons[0]).toMatch(/or to another database/)
})

test('where nobody can send a notification, nothing is known, and the session counts', async () => {
  const watched = listenerOn(database.url, { notifyFromElsewhere: () => Promise.reject(new Error('away')) })
  await watched.listener.start()
  expect(watched).toMatchObject({ causes: [], resyncs: 1 })
})

test('a connection that breaks while it is tried out is no pooler', async () => {
  const proxy = await blackHoleProxy(database.url)
  const watched = listenerOn(proxy.url, {
    notifyFromElsewhere() {
      proxy.reset()
      return Promise.resolve()
    },
  })
  await expect(watched.listener.start()).rejects.toThrow('ECONNRESET')
})

test('a gateway behind a transaction pooler polls, prepares nothing, and says that it is degraded', async () => {
  const pooler = await transactionPooler(database.url)
  const gateway = await gatewayFor({ url: pooler.url }, noBackstop)
  expect(await (await fetch(`${gateway.url}/readyz`)).text()).toBe(
    'ok\ndegraded: notifications are not heard (pooler)\n',
  )
  expect(await gateway.metric('pullgate_listener_losses_total', { cause: 'pooler' })).toBe(1)
  const subscription = await gateway.subscribe('pooled')
  for (let n = 0; n < 5; n += 1) {
    const answer = gateway.pull(subscription, { wait: 50 })
    await gateway.parked(1, subscription)
    const id = await publish(database, 'pooled')
    const job = jobOf(await answer)
    expect(job.id).toBe(id)
    expect((await gateway.settle(job, 'complete')).status).toBe(200)
  }
  const claimed = (cause: string) => gateway.metric('pullgate_claimed_jobs_total', { topic: 'pooled', cause })
  expect(await claimed('tick')).toBe(5)
  // A job that falls due soon is not announced either.
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const id = await database.value(`select pullgate.publish('pooled', '1'::text, delay => '0.5 s')`)
  expect(jobOf(await answer).id).toBe(id)

  // Of many topics a look finds those that have work.
  const topics = Array.from({ length: 20 }, (_, n) => `pooled-${n}`)
  const subscriptions = await Promise.all(topics.map((topic) => gateway.subscribe(topic)))
  const answers = subscriptions.map((one) => gateway.pull(one, { wait: 50 }))
  await until(async () =>
    expect(await gateway.metric('pullgate_watched_topics', { mode: 'polled' })).toBe(20),
  )
  const ids = []
  for (const topic of topics) ids.push(await publish(database, topic))
  const jobs = await Promise.all(answers)
  expect(jobs.map((one) => jobOf(one).id)).toEqual(ids)
  expect(await gateway.metric('pullgate_db_errors_total')).toBe(0)
})

test('with a direct connection to listen on, a gateway behind a transaction pooler is notified', async () => {
  const pooler = await transactionPooler(database.url)
  const settings = { ...noBackstop, PULLGATE_LISTEN_DATABASE_URL: database.url }
  const gateway = await gatewayFor({ url: pooler.url }, settings)
  expect(await (await fetch(`${gateway.url}/readyz`)).text()).toBe('ok\n')
  const subscription = await gateway.subscribe('pooled-direct')
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  await until(async () => expect(await gateway.metric('pullgate_watched_topics', { mode: 'armed' })).toBe(1))
  const id = await publish(database, 'pooled-direct')
  expect(jobOf(await answer).id).toBe(id)
  expect(await gateway.metric('pullgate_claimed_jobs_total', { cause: 'tick' })).toBe(0)
})
