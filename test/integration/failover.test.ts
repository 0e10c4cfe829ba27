import { afterEach, beforeEach, expect, test } from 'vitest'
import type { EmbeddedPostgres } from '../../src/db/embedded.ts'
import { withClient } from '../../src/db/home.ts'
import { migrate } from '../../src/db/migrations.ts'
import { publish } from '../sql/jobs.ts'
import { gatewayFor } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import { openScratch } from '../support/postgres.ts'
import type { Scratch } from '../support/postgres.ts'
import { caughtUp, promote, startStandby } from '../support/standby.ts'

// A primary that dies, and its streaming standby that is promoted.

const settings = { fsync: 'off', shared_buffers: '32MB' }
let scratch: Scratch
let primary: EmbeddedPostgres
let standby: EmbeddedPostgres

beforeEach(async () => {
  scratch = openScratch('failover')
  primary = await scratch.start('primary', { settings })
  await withClient(primary.url, (client) => migrate(client))
  standby = await startStandby(primary, scratch, settings)
})
afterEach(async () => {
  await Promise.all([standby.stop(), primary.stop()])
  scratch.remove()
})

async function listener(gateway: TestGateway, connected: 0 | 1): Promise<void> {
  await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(connected))
}

const losses = (gateway: TestGateway, cause: string) =>
  gateway.metric('pullgate_listener_losses_total', { cause })

async function die(): Promise<void> {
  await caughtUp(primary, standby)
  process.kill(primary.pid, 'SIGKILL')
  await primary.exited
}

test('of several servers the primary is found, again after a failover; parked pulls stay', async () => {
  const [from, to] = [new URL(primary.url), new URL(standby.url)]
  // The standby comes first: it is asked, and passed over.
  const url = primary.url.replace(from.host, `${to.host},${from.host}`)
  const gateway = await gatewayFor({ url })
  const subscription = await gateway.subscribe('failover')
  await gateway.publish('failover')
  const held = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)

  await die()
  // A standby alone is no place to work.
  await until(async () => expect(await losses(gateway, 'standby')).toBeGreaterThan(0))
  const refused = await gateway.settle(held, 'complete')
  expectProblem(refused, 503, 'database-unavailable')
  expect(refused.headers.get('retry-after')).toMatch(/^[1-9]$/)
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)

  await expect(gatewayFor({ url })).rejects.toThrow(
    /none of 2 servers is a primary that answers \(1: the server takes no writes.*; 2: connect ECONNREFUSED/,
  )

  await promote(standby)
  await until(async () => expect((await gateway.settle(held, 'complete')).status).toBe(200))
  const id = await withClient(url, (client) => publish(client, 'failover'))
  expect(jobOf(await parked).id).toBe(id)
  await listener(gateway, 1)
})

test('behind one address a standby is refused, and the new primary is taken when it is one', async () => {
  const proxy = await blackHoleProxy(primary.url)
  const gateway = await gatewayFor({ url: proxy.url })
  const subscription = await gateway.subscribe('moved')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)

  proxy.redirect(standby.url)
  await die()
  await until(async () => expect(await losses(gateway, 'standby')).toBeGreaterThan(0))
  for (const answer of [
    await gateway.pull(subscription, { wait: 0 }),
    await gateway.request('GET', '/jobs/1'),
    await gateway.request('POST', '/topics/moved/jobs', { json: { jobSpec: 1 } }),
  ]) {
    expectProblem(answer, 503, 'database-unavailable')
  }
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)

  await promote(standby)
  await until(async () => expect((await gateway.request('GET', '/topics/moved')).status).toBe(200))
  const id = await gateway.publish('moved')
  expect(jobOf(await parked).id).toBe(id)
  await listener(gateway, 1)
})
