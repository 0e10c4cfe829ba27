import { expect, test } from 'vitest'
import { endLease, publish, readJob, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { useGateway } from '../support/gateway.ts'
import { openRaw } from '../support/http-raw.ts'
import { apiOf, expectProblem, jobOf, jobsOf, until } from '../support/http.ts'

// Two-phase delivery. The backstop sees to the ends of offers, which the tests bring about by hand.
const database = useDatabase()
const gateway = useGateway(database, { PULLGATE_BACKSTOP_MS: 100 })
const offering = (topic: string) => gateway.subscribe(topic, { offerSeconds: 5, leaseSeconds: 90 })

test('a job is offered until its first heartbeat accepts it, which has the whole lease', async () => {
  const subscription = await offering('accepted')
  const id = await publish(database, 'accepted')
  const pulled = await gateway.pull(subscription, { wait: 50 })
  const job = jobOf(pulled)
  expect(job).toMatchObject({ id, attempt: 1, leaseSeconds: 90 })
  expect(pulled.body.acceptBy).toBe(pulled.body.leaseExpiresAt)
  const seconds = (instant: unknown) => (Date.parse(String(instant)) - Date.now()) / 1000
  expect(seconds(pulled.body.acceptBy)).toBeLessThan(6)
  expect(await gateway.job(id)).toMatchObject({
    state: 'offered',
    pending: 'waiting-for-acceptance',
    attempts: 0,
  })
  const accepted = await gateway.settle(job, 'heartbeat')
  expect(accepted).toMatchObject({ status: 200, body: { cancel: null } })
  expect(seconds(accepted.body.leaseExpiresAt)).toBeGreaterThan(60)
  expect(await gateway.job(id)).toMatchObject({ state: 'running', pending: null, attempts: 1 })
  expect((await gateway.settle(job, 'complete')).status).toBe(200)
})

test('a batch is accepted by heartbeats in the next pull', async () => {
  const subscription = await offering('batch')
  for (let job = 0; job < 3; job++) await publish(database, 'batch')
  const jobs = jobsOf(await gateway.pull(subscription, { max: 3, wait: 50 }))
  const heartbeat = jobs.map(({ id, lease }) => ({ id, lease }))
  const next = await gateway.pull(subscription, { max: 3, wait: 0, json: { heartbeat } })
  expect(next.body.settled).toEqual(jobs.map(({ id }) => ({ id, status: 200 })))
  for (const { id } of jobs) expect(await stateOf(database, id)).toBe('running')
})

test('without offerSeconds there is no acceptBy, and a subscription says which it is', async () => {
  const [plain, offers] = [await gateway.subscribe('plain'), await offering('plain')]
  await publish(database, 'plain')
  const { body } = await gateway.pull(plain, { wait: 50 })
  expect(body).not.toHaveProperty('acceptBy')
  expect(await stateOf(database, String(body.id))).toBe('running')
  const settings = async (id: string) =>
    (await gateway.request('GET', `/subscriptions/${id}`)).body.offerSeconds
  expect([await settings(plain), await settings(offers)]).toEqual([null, 5])
})

test('offerSeconds needs explicit acknowledgement', async () => {
  const json = { topic: 'refused', offerSeconds: 15 }
  const answer = await gateway.request('POST', '/subscriptions', { json })
  expectProblem(answer, 400, 'invalid-request')
  expect(answer.body.errors).toMatchObject([{ field: 'offerSeconds' }])
  const off = await gateway.request('POST', '/subscriptions', { json: { ...json, offerSeconds: null } })
  expect([off.status, off.body.offerSeconds]).toEqual([200, null])
})

test('an offer whose answer was swallowed goes to the next executor, no attempt spent', async () => {
  const topic = 'swallowed'
  const subscription = await offering(topic)
  const proxy = await blackHoleProxy(gateway.url)
  const lost = apiOf(new URL(proxy.url).origin)
    .pull(subscription, { wait: 50 })
    .catch(() => undefined)
  await gateway.parked(1)
  proxy.swallow()
  const id = await publish(database, topic, { on_lost: 'orphan' })
  await until(async () => expect(await stateOf(database, id)).toBe('offered'))
  const next = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1)
  await endLease(database, id)
  expect(jobOf(await next)).toMatchObject({ id, attempt: 1, redelivered: true })
  await until(async () =>
    expect(await gateway.metric('pullgate_offers_ended_total', { state: 'ready' })).toBe(1),
  )
  proxy.cut()
  await lost
})

test('after a reset amid the answer offered jobs are ready again, whatever on_lost says', async () => {
  const topic = 'reset-amid'
  const subscription = await offering(topic)
  // More than the socket buffers of both sides hold.
  const spec = JSON.stringify('x'.repeat(1_000_000))
  const policies = ['requeue', 'orphan', 'fail'].flatMap((on_lost) => Array<string>(4).fill(on_lost))
  const ids = await Promise.all(policies.map((on_lost) => publish(database, topic, { spec, on_lost })))
  const client = await openRaw(gateway.url, { reading: false })
  client.pull(subscription, '?max=12&wait=50')
  await client.answered()
  client.reset()
  for (const id of ids) {
    await until(async () => expect(await stateOf(database, id)).toBe('ready'))
    expect(await readJob(database, id)).toMatchObject({ attempts: 0, deliveries: 0, lease: null })
  }
})

test('a cancel of an offered job is at once, and accepting it is refused', async () => {
  const subscription = await offering('cancelled')
  await publish(database, 'cancelled')
  const job = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const cancel = await gateway.request('POST', `/jobs/${job.id}/cancel`)
  expect(cancel.body).toEqual({ state: 'cancelled' })
  expectProblem(await gateway.settle(job, 'heartbeat'), 409, 'lease-lost')
})

test('offered jobs count as wanted executors', async () => {
  const subscription = await offering('counted')
  for (let job = 0; job < 3; job++) await publish(database, 'counted')
  const [one] = jobsOf(await gateway.pull(subscription, { max: 2, wait: 50 }))
  if (one === undefined) throw new Error('no job')
  await gateway.settle(one, 'heartbeat')
  expect((await gateway.request('GET', '/topics/counted')).body).toMatchObject({
    jobs: { ready: 1, offered: 1, running: 1 },
    desiredExecutors: 3,
  })
})
