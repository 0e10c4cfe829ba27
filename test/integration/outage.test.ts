import { afterAll, beforeAll, expect, test } from 'vitest'
import type { EmbeddedPostgres } from '../../src/db/embedded.ts'
import { withClient } from '../../src/db/home.ts'
import { migrate } from '../../src/db/migrations.ts'
import { publish } from '../sql/jobs.ts'
import { gatewayFor, listeningSessions } from '../support/gateway.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import { openScratch } from '../support/postgres.ts'
import type { Scratch } from '../support/postgres.ts'

let scratch: Scratch
let server: EmbeddedPostgres
const settings = { fsync: 'off', shared_buffers: '32MB' }

beforeAll(async () => {
  scratch = openScratch('outage')
  server = await scratch.start('data', { settings })
  await withClient(server.url, (client) => migrate(client))
})
afterAll(async () => {
  await server.stop()
  scratch.remove()
})

async function startAgain(): Promise<void> {
  const port = Number(new URL(server.url).port)
  server = await scratch.start('data', { settings, port })
}

test('while Postgres is away: 503 and alive; parked pulls stay, and get what comes after', async () => {
  const gateway = await gatewayFor(server)
  const [subscription, other] = [await gateway.subscribe('outage'), await gateway.subscribe('outage-other')]
  await withClient(server.url, (client) => publish(client, 'outage-other'))
  const job = jobOf(await gateway.pull(other, { wait: 50 }))
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)

  await server.stop()
  await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(0))
  const refused = [
    await gateway.pull(other, { wait: 50 }),
    await gateway.settle(job, 'complete'),
    await gateway.request('GET', `/jobs/${job.id}`),
    await gateway.request('POST', '/subscriptions', { json: { topic: 'outage' } }),
    await gateway.request('POST', '/topics/outage/jobs', { json: { jobSpec: 1 } }),
    await gateway.request('GET', '/topics/outage'),
  ]
  for (const answer of refused) {
    expectProblem(answer, 503, 'database-unavailable')
    expect(answer.headers.get('retry-after')).toMatch(/^[1-9]$/)
  }
  const settling = { max: 1, json: { complete: [{ id: job.id, lease: job.lease }] } }
  expect((await gateway.pull(other, settling)).body.settled).toEqual([
    { id: job.id, status: 503, code: 'database-unavailable' },
  ])
  expect((await gateway.request('GET', '/livez')).status).toBe(200)
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  expect(await gateway.metric('pullgate_db_errors_total')).toBeGreaterThan(0)

  await startAgain()
  const id = await withClient(server.url, (client) => publish(client, 'outage'))
  expect(jobOf(await parked)).toMatchObject({ id, attempt: 1 })
  expect((await gateway.settle(job, 'complete')).body).toEqual({ state: 'succeeded' })
  await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(1))
  await gateway.publish('outage')
  jobOf(await gateway.pull(subscription, { wait: 50 }))
})

test('a pull that arrives during the outage is refused alone: those parked on its topic stay', async () => {
  const gateway = await gatewayFor(server)
  const subscription = await gateway.subscribe('arrival')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  await server.stop()
  expectProblem(await gateway.pull(subscription, { wait: 50 }), 503, 'database-unavailable')
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  await startAgain()
  const id = await withClient(server.url, (client) => publish(client, 'arrival'))
  expect(jobOf(await parked).id).toBe(id)
})

test('after a crash of the server, or an immediate stop, everything goes on by itself', async () => {
  const gateway = await gatewayFor(server)
  const subscription = await gateway.subscribe('crash')
  const crashes = [
    async () => {
      process.kill(server.pid, 'SIGQUIT')
      await server.exited
      await startAgain()
    },
    // A process that is killed takes the sessions of all others along.
    async () => {
      const { rows } = await withClient(server.url, (client) =>
        client.query<{ pid: number }>(listeningSessions),
      )
      process.kill(rows[0]?.pid ?? 0, 'SIGKILL')
    },
  ]
  for (const crash of crashes) {
    const parked = gateway.pull(subscription, { wait: 50 })
    await gateway.parked(1, subscription)
    const lost = await gateway.metric('pullgate_listener_losses_total')
    await crash()
    await until(async () =>
      expect(await gateway.metric('pullgate_listener_losses_total')).toBeGreaterThan(lost),
    )
    await until(async () => expect((await gateway.request('GET', '/topics/crash')).status).toBe(200))
    const id = await gateway.publish('crash')
    expect(jobOf(await parked)).toMatchObject({ id, attempt: 1 })
    await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(1))
  }
})

test('a server that turns read-only keeps no connection of the pool; all is well when it takes writes again', async () => {
  const gateway = await gatewayFor(server)
  const subscription = await gateway.subscribe('read-only')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const readOnly = (on: boolean) =>
    withClient(server.url, async (client) => {
      await client.query('set default_transaction_read_only = off')
      await client.query(`alter system set default_transaction_read_only = ${on ? 'on' : 'off'}`)
      await client.query('select pg_reload_conf()')
    })

  await readOnly(true)
  // The connections of the pool are the same as before: the server says 25006 on them.
  await until(async () => {
    expect(await gateway.metric('pullgate_db_errors_total', { class: '25' })).toBeGreaterThan(0)
  })
  const publishing = () => gateway.request('POST', '/topics/read-only/jobs', { json: { jobSpec: 1 } })
  await until(async () => expectProblem(await publishing(), 503, 'database-unavailable'))
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)

  await readOnly(false)
  await until(async () => expect((await publishing()).status).toBe(201))
  jobOf(await parked)
})
