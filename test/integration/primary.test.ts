import { EventEmitter, once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../src/db/database.ts'
import { createPrimary } from '../../src/db/primary.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor } from '../support/gateway.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import { transactionPooler } from '../support/transaction-pooler.ts'

// Which server of a URL is taken, and what becomes of connections that fall silent. Standbys: failover.test.ts.

const database = useDatabase()

/** One URL of several servers. */
function together(...urls: readonly string[]): string {
  const [first = '', ...others] = urls
  const hosts = [first, ...others].map((url) => new URL(url).host).join(',')
  return first.replace(new URL(first).host, hosts)
}

test('a single server is taken unasked', async () => {
  const proxy = await blackHoleProxy(database.url)
  expect(await createPrimary(proxy.url, 1_000).find()).toBe(proxy.url)
  expect(proxy.accepted).toBe(0)
})

test('of several, one that is silent is passed over, and the primary of last time is asked first', async () => {
  const [silent, alive] = [await blackHoleProxy(database.url), await blackHoleProxy(database.url)]
  silent.swallow()
  const primary = createPrimary(together(silent.url, alive.url), 4_000)
  expect(await primary.find()).toBe(alive.url)
  expect([silent.accepted, alive.accepted]).toEqual([1, 1])
  silent.restore()
  expect(await primary.find()).toBe(alive.url)
  expect([silent.accepted, alive.accepted]).toEqual([1, 2])
  alive.cut()
  expect(await primary.find()).toBe(silent.url)
})

test('all who look for the primary at once share one search', async () => {
  const [one, two] = [await blackHoleProxy(database.url), await blackHoleProxy(database.url)]
  const primary = createPrimary(together(one.url, two.url), 5_000)
  expect(new Set(await Promise.all([1, 2, 3].map(() => primary.find())))).toEqual(new Set([one.url]))
  expect([one.accepted, two.accepted]).toEqual([1, 0])
})

test('a search that fails says what each server answered, and no password', async () => {
  const url = new URL(database.url)
  url.pathname = '/no_such_database'
  const found = createPrimary(together(url.href, url.href), 5_000).find()
  await expect(found).rejects.toThrow(/^none of 2 servers .*\(1: database "no_such_database" does not exist/)
  if (url.password !== '') await expect(found).rejects.not.toThrow(url.password)
})

test('statements are prepared, but not where a pooler may run each in another session', async () => {
  const pooler = await transactionPooler(database.url)
  const preparedBehind = async (url: string) => {
    const pool = openDatabase({
      ...{ url, applicationName: 'test', poolMax: 1, connectTimeoutMs: 5_000, statementTimeoutMs: 5_000 },
      emit: (event) => expect(event).toBeUndefined(),
    })
    onTestFinished(() => pool.close())
    await pool.withClient((client) => client.query('select'))
    const text = 'select count(*)::integer as count from pg_prepared_statements'
    return pool.query({ name: 'count', text }, [])
  }
  expect(await preparedBehind(database.url)).toEqual([{ count: 1 }])
  expect(await preparedBehind(pooler.url)).toEqual([{ count: 0 }])
})

test('a connection of the pool that falls silent costs the requests on it a 503, and is replaced', async () => {
  const proxy = await blackHoleProxy(database.url)
  const settings = { PULLGATE_STATEMENT_TIMEOUT_MS: 200, PULLGATE_LISTEN_DATABASE_URL: database.url }
  const gateway = await gatewayFor({ url: proxy.url }, settings)
  const subscription = await gateway.subscribe('silent')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  proxy.swallow()
  const refused = gateway.request('POST', '/topics/silent/jobs', { json: { jobSpec: 1 } })
  await until(async () =>
    expect(await gateway.metric('pullgate_db_pool_connections', { state: 'active' })).toBeGreaterThan(0),
  )
  proxy.restore()
  expectProblem(await refused, 503, 'database-unavailable')
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  // Other connections of the pool may have fallen silent as well.
  await until(async () => {
    const answer = await gateway.request('POST', '/topics/silent/jobs', { json: { jobSpec: 1 } })
    expect(answer.status).toBe(201)
  })
  jobOf(await parked)
})

test('a connection that is ready only after whoever waited for it has been refused stays in the pool', async () => {
  const proxy = await blackHoleProxy(database.url)
  const pool = openDatabase({
    ...{ url: proxy.url, applicationName: 'test', poolMax: 1, connectTimeoutMs: 1_500 },
    ...{ statementTimeoutMs: 10_000, emit: () => undefined },
  })
  onTestFinished(() => pool.close())
  const one = { name: 'one', text: 'select 1 as one' }
  const busy = new EventEmitter()
  const first = pool.withClient(async (client) => {
    busy.emit('begun')
    await once(busy, 'end')
    const gone = new Promise((resolve) => client.once('end', resolve))
    await client.query('select pg_terminate_backend(pg_backend_pid())').catch(() => undefined)
    await gone
  })
  await once(busy, 'begun')
  const letGo = proxy.hold('pg_catalog.pg_backend_pid() as')
  const waits = pool.query(one, [])
  const refused = expect(waits).rejects.toThrow()
  busy.emit('end')
  await first
  await until(() => expect(proxy.held).toBe(1))
  await refused
  letGo()
  await until(() => expect(pool.poolState()).toMatchObject({ total: 1, idle: 1 }))
  expect(await pool.query(one, [])).toEqual([{ one: 1 }])
})
