import { expect, test } from 'vitest'
import { publish, readJob } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, listeningSessions, noBackstop, useGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { openRaw } from '../support/http-raw.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import type { Job } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database, noBackstop)
let topics = 0

async function running(leaseSeconds = 600): Promise<Job> {
  const topic = `held-${(topics += 1)}`
  const subscription = await gateway.subscribe(topic, { leaseSeconds })
  await publish(database, topic)
  return jobOf(await gateway.pull(subscription, { wait: 50 }))
}

/** Resolves once the heartbeat has reached the database; what is then still open is held. */
async function hold(one: TestGateway, job: Job, wait = 50, signal?: AbortSignal) {
  const count = () => one.metric('pullgate_heartbeats_total')
  const before = await count()
  const answer = one.request('POST', `/jobs/${job.id}/heartbeat`, {
    json: { lease: job.lease },
    headers: { Prefer: `wait=${wait}` },
    ...(signal === undefined ? {} : { signal }),
  })
  await until(async () => expect(await count()).toBe(before + 1))
  return { answer }
}

test('hears of a cancel at once, on whichever gateway it is held, however the cancel came', async () => {
  const other = await gatewayFor(database, noBackstop)
  const cancels: ((job: Job) => Promise<unknown>)[] = [
    (job) => other.request('POST', `/jobs/${job.id}/cancel`, { json: { reason: 'enough' } }),
    (job) => database.query(`select pullgate.cancel($1, 'enough')`, [job.id]),
  ]
  for (const cancel of cancels) {
    const [job, untouched] = [await running(), await running()]
    const held = [await hold(gateway, job), await hold(other, job)]
    const stays = await hold(gateway, untouched, 1)
    await cancel(job)
    for (const { answer } of held) {
      const { status, body, headers } = await answer
      expect([status, body.cancel]).toEqual([200, { reason: 'enough' }])
      expect(headers.get('preference-applied')).toBe('wait=50')
    }
    expect((await stays.answer).body.cancel).toBeNull()
  }
})

test('is answered at once when there is a cancel to tell, or the lease is stale', async () => {
  const job = await running()
  await gateway.request('POST', `/jobs/${job.id}/cancel`)
  const { answer } = await hold(gateway, job)
  expect((await answer).body.cancel).toEqual({ reason: 'cancelled' })
  await gateway.settle(job, 'release')
  expectProblem(await (await hold(gateway, job)).answer, 409, 'lease-lost')
})

test('holds a third of the lease at most, and only when asked', async () => {
  const job = await running(10)
  const { answer } = await hold(gateway, job, 1)
  expect((await answer).headers.get('preference-applied')).toBe('wait=1')
  const away = new AbortController()
  const long = await hold(gateway, job, 50)
  expect((await long.answer).headers.get('preference-applied')).toBe('wait=3')
  away.abort()
  const plain = await gateway.settle(job, 'heartbeat')
  expect([plain.status, plain.headers.has('preference-applied')]).toEqual([200, false])
})

test('holds no connection of the pool and no transaction', async () => {
  const jobs = [await running(), await running(), await running()]
  const away = new AbortController()
  for (const job of jobs) (await hold(gateway, job, 50, away.signal)).answer.catch(() => undefined)
  await until(async () =>
    expect(await gateway.metric('pullgate_db_pool_connections', { state: 'active' })).toBe(0),
  )
  const open = `select count(*)::integer from pg_stat_activity
    where datname = current_database() and application_name like 'pullgate/%' and state like 'idle in transaction%'`
  expect(await database.value(open)).toBe(0)
  away.abort()
})

test('of a client that has left is forgotten: a cancel has nobody to ask for', async () => {
  const job = await running()
  const client = await openRaw(gateway.url)
  const body = JSON.stringify({ lease: job.lease })
  const before = await gateway.metric('pullgate_heartbeats_total')
  client.send(
    `POST /jobs/${job.id}/heartbeat HTTP/1.1\r\nHost: x\r\nPrefer: wait=50\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  )
  await until(async () => expect(await gateway.metric('pullgate_heartbeats_total')).toBe(before + 1))
  const requests = () => gateway.metric('pullgate_http_requests_total', { route: '/jobs/{id}/heartbeat' })
  const ended = await requests()
  client.reset()
  await until(async () => expect(await requests()).toBe(ended + 1))
  const idle = await gateway.metric('pullgate_notifications_total', { result: 'idle' })
  await database.query('select pullgate.cancel($1)', [job.id])
  await until(async () =>
    expect(await gateway.metric('pullgate_notifications_total', { result: 'idle' })).toBe(idle + 1),
  )
  expect(await gateway.metric('pullgate_heartbeats_total')).toBe(before + 1)
})

test('an offer is accepted before the heartbeat is held', async () => {
  const subscription = await gateway.subscribe('held-offer', { offerSeconds: 60, leaseSeconds: 600 })
  const id = await publish(database, 'held-offer')
  const job = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const { answer } = await hold(gateway, job)
  expect(await readJob(database, id)).toMatchObject({ state: 'running', attempts: 1 })
  await database.query('select pullgate.cancel($1)', [id])
  expect((await answer).body.cancel).toEqual({ reason: 'cancelled' })
})

test('a drain answers it, and asks for another connection', async () => {
  const leaving = await gatewayFor(database, noBackstop)
  const { answer } = await hold(leaving, await running())
  expect(await leaving.stop('test')).toBe(true)
  const { status, body, headers } = await answer
  expect([status, body.cancel, headers.get('connection')]).toEqual([200, null, 'close'])
})

test('a heartbeat that a silent cancel passed by is told of it when the listener comes back', async () => {
  const fresh = await gatewayFor(database, noBackstop)
  const job = await running()
  const { answer } = await hold(fresh, job)
  await database.query(`begin; set local pullgate.notify = off; select pullgate.cancel(${job.id}); commit`)
  const ended = await database.query(
    `select pg_terminate_backend(pid, 5000) from (${listeningSessions}) session`,
  )
  expect(ended).not.toEqual([])
  expect((await answer).body.cancel).toEqual({ reason: 'cancelled' })
})

test('ends at once when its job is settled on its gateway, in whichever way, or by id in SQL', async () => {
  const pullWith = (settles: object) => async () => {
    const subscription = await gateway.subscribe(`held-${(topics += 1)}`)
    return gateway.pull(subscription, { wait: 0, max: 1, json: settles })
  }
  const settles: ((job: Job) => Promise<unknown>)[] = [
    (job) => gateway.settle(job, 'complete'),
    (job) => gateway.settle(job, 'fail', { error: 'no', retry: false }),
    (job) => gateway.settle(job, 'release'),
    ({ id, lease }) => pullWith({ complete: [{ id, lease }] })(),
    ({ id }) => database.query('select pullgate.complete($1)', [id]),
    ({ id }) => database.query(`select pullgate.fail($1, 'no')`, [id]),
  ]
  for (const settle of settles) {
    const job = await running()
    const { answer } = await hold(gateway, job)
    await settle(job)
    expectProblem(await answer, 409, 'lease-lost')
  }
})

test('ends at once when its subscription is ended with release on its gateway; others stay held', async () => {
  const subscription = await gateway.subscribe('held-released', { leaseSeconds: 600 })
  await publish(database, 'held-released')
  const job = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const away = new AbortController()
  const other = await hold(gateway, await running(), 50, away.signal)
  const { answer } = await hold(gateway, job)
  const deleted = await gateway.request('DELETE', `/subscriptions/${subscription}?release=true`)
  expect(deleted.status).toBe(204)
  expectProblem(await answer, 409, 'lease-lost')
  const stays = other.answer.then(
    () => 'answered',
    () => 'held',
  )
  away.abort()
  expect(await stays).toBe('held')
})

test('at the end of its hold tells of a settle on another gateway, of a cancel not heard of, or how the lease is', async () => {
  // The end of the hold, whenever the test wants it.
  const leaving = await gatewayFor(database, noBackstop)
  const [settled, cancelled, calm] = [await running(), await running(), await running()]
  const held = [await hold(leaving, settled), await hold(leaving, cancelled), await hold(leaving, calm)]
  expect((await gateway.settle(settled, 'complete')).status).toBe(200)
  await database.query(
    `begin; set local pullgate.notify = off; select pullgate.cancel(${cancelled.id}); commit`,
  )
  const endsAt = (await readJob(database, calm.id))['lease_ends_at']
  expect(await leaving.stop('test')).toBe(true)
  const [lost, told, same] = await Promise.all(held.map(({ answer }) => answer))
  if (lost === undefined || told === undefined || same === undefined) throw new Error('three answers, please')
  expectProblem(lost, 409, 'lease-lost')
  expect([told.status, told.body.cancel]).toEqual([200, { reason: 'cancelled' }])
  // The look renews nothing.
  expect([same.status, same.body.cancel]).toEqual([200, null])
  expect(new Date(String(same.body.leaseExpiresAt))).toEqual(new Date(String(endsAt)))
  expect((await readJob(database, calm.id))['lease_ends_at']).toEqual(endsAt)
})

test('is known by the number of its job, however the path writes it', async () => {
  const job = await running()
  const { answer } = await hold(gateway, { ...job, id: `00${job.id}` })
  await gateway.settle(job, 'complete')
  expectProblem(await answer, 409, 'lease-lost')
})
