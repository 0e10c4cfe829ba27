import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { startGateway } from '../../src/app.ts'
import type { Gateway } from '../../src/app.ts'
import { readConfig } from '../../src/config.ts'
import type { TestDatabase } from './database.ts'
import { apiOf, until } from './http.ts'
import type { Api } from './http.ts'

export type TestGateway = Api & { readonly stop: Gateway['stop'] }

export type Settings = Readonly<Record<string, string | number>>

/** No backstop helps within a test's time: what arrives was woken. */
export const noBackstop = { PULLGATE_BACKSTOP_MS: 60_000 }

async function start(databaseUrl: string, settings: Settings): Promise<TestGateway> {
  const texts = Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, String(value)]))
  const config = readConfig({ PULLGATE_PORT: '0', PULLGATE_LOG_LEVEL: 'silent', ...texts })
  const gateway = await startGateway(config, databaseUrl)
  return { ...apiOf(gateway.url, gateway.adminUrl), stop: gateway.stop }
}

/** A gateway in this process, until the end of the test. */
export async function gatewayFor(
  database: { readonly url: string },
  settings: Settings = {},
): Promise<TestGateway> {
  const gateway = await start(database.url, settings)
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

/** Resolves once so many claims wait for the release. */
export async function claimsHeld(database: TestDatabase, count: number): Promise<void> {
  await until(async () => {
    const waiting = `select count(*)::integer from pg_stat_activity
      where wait_event_type = 'Lock' and query like '%pullgate.claim(%' and datname = current_database()`
    expect(await database.value(waiting)).toBe(count)
  })
}
