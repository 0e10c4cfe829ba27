import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { startGateway } from '../../src/app.ts'
import type { Gateway } from '../../src/app.ts'
import { readConfig } from '../../src/config.ts'
import type { Clock } from '../../src/domain/clock.ts'
import type { TestDatabase } from './database.ts'
import { apiOf, until } from './http.ts'
import type { Api } from './http.ts'

export type TestGateway = Api & { readonly stop: Gateway['stop'] }

export type Settings = Readonly<Record<string, string | number>>

/** No backstop helps within a test's time: what arrives was woken. It is the most that a setting may say. */
export const noBackstop = { PULLGATE_BACKSTOP_MS: 60_000 }

/** SQL for the pids of the sessions that listen for gateways: each holds the lock of its gateway's id. */
export const listeningSessions = `select pid from pg_locks
  where locktype = 'advisory' and mode = 'ExclusiveLock' and granted
    and database = (select oid from pg_database where datname = current_database())
    and objid::bigint in (select id from pullgate.gateway)`

async function start(
  databaseUrl: string,
  settings: Settings,
  clock?: Clock,
  lost?: Promise<void>,
): Promise<TestGateway> {
  const texts = Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, String(value)]))
  const config = readConfig({ PULLGATE_PORT: '0', PULLGATE_LOG_LEVEL: 'silent', ...texts })
  // On a busy machine a test may well take a minute.
  const never = config.PULLGATE_BACKSTOP_MS === noBackstop.PULLGATE_BACKSTOP_MS
  const gateway = await startGateway(
    never ? { ...config, PULLGATE_BACKSTOP_MS: 24 * 3_600_000 } : config,
    databaseUrl,
    { clock, lost },
  )
  return { ...apiOf(gateway.url, gateway.adminUrl), stop: gateway.stop }
}

/** A gateway in this process, until the end of the test. */
export async function gatewayFor(
  database: { readonly url: string },
  settings: Settings = {},
  clock?: Clock,
  lost?: Promise<void>,
): Promise<TestGateway> {
  const gateway = await start(database.url, settings, clock, lost)
  onTestFinished(async () => {
    await gateway.stop('the test ended')
  })
  return gateway
}

/** A gateway in this process for all tests of the file. Call after useDatabase, so that it ends before the database. */
export function useGateway(database: { readonly url: string }, settings: Settings = {}): TestGateway {
  const holder: { gateway?: TestGateway } = {}
  beforeAll(async () => {
    holder.gateway = await start(database.url, settings)
  })
  afterAll(async () => {
    await holder.gateway?.stop('the tests ended')
  })
  return new Proxy({} as TestGateway, {
    get(_target, name) {
      if (holder.gateway === undefined) throw new Error('the gateway is there from beforeAll on')
      return holder.gateway[name as keyof TestGateway]
    },
  })
}

/**
 * Makes claims and publishes wait, and lets reads pass. A claim has looked at its subscriptions by then, and waits only
 * if the topic ever had a job. Returns the release.
 */
export async function holdClaims(database: TestDatabase): Promise<() => Promise<void>> {
  const session = await database.session()
  await session.query('begin; lock table pullgate.job in exclusive mode')
  const release = async () => {
    await session.query('rollback')
  }
  onTestFinished(release)
  return release
}

/** For a pull that is parked on the topic: a job, and a claim of it that does not end before `release`. */
export async function claimUnderWay(
  database: TestDatabase,
  topic: string,
): Promise<{ id: string; release: () => Promise<void> }> {
  // A claim waits only if the topic ever had a job.
  await database.query(`select pullgate.publish($1, '0'::text, delay => '1 day')`, [topic])
  const session = await database.session()
  await session.query('begin; set local pullgate.notify = off')
  const { rows } = await session.query<{ id: string }>(`select pullgate.publish($1, '{}'::text) as id`, [
    topic,
  ])
  await session.query('lock table pullgate.job in exclusive mode')
  // Its statement begins, as to what it sees, when the lock is gone.
  const release = async () => {
    await session.query('commit')
  }
  onTestFinished(release)
  await database.query('select pullgate.wake($1)', [topic])
  await claimsHeld(database, 1)
  return { id: rows[0]?.id ?? '', release }
}

/**
 * Resolves once the gateway knows that nothing is ready on the subscription's topic, and that it will hear of what
 * comes: then a pull that comes makes no claim.
 */
export async function quiet(gateway: TestGateway, subscription: string): Promise<void> {
  const arrivals = () => gateway.metric('pullgate_wakes_total', { cause: 'arrival' })
  await until(async () => {
    const [before, parked] = [await arrivals(), await gateway.metric('pullgate_pulls_parked')]
    const away = new AbortController()
    const pull = gateway.pull(subscription, { wait: 50, signal: away.signal }).catch(() => undefined)
    await gateway.parked(parked + 1)
    away.abort()
    await pull
    await gateway.parked(parked)
    expect(await arrivals()).toBe(before)
  })
}

/** Resolves once so many claims wait for the release. */
export async function claimsHeld(database: TestDatabase, count: number): Promise<void> {
  await until(async () => {
    const waiting = `select count(*)::integer from pg_stat_activity
      where wait_event_type = 'Lock' and query like '%pullgate.claim(%' and datname = current_database()`
    expect(await database.value(waiting)).toBe(count)
  })
}
