import { expect, test } from 'vitest'
import { openDatabase } from '../../src/db/database.ts'
import { createSettleStore } from '../../src/db/settle-store.ts'
import { endLease, publish, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { noBackstop, useGateway } from '../support/gateway.ts'
import { expectProblem, jobOf, jobsOf, until } from '../support/http.ts'
import type { Answer, Job } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database, noBackstop)
const noLease = '00000000-0000-4000-8000-000000000000'
let topics = 0

async function held(options: Parameters<typeof publish>[2] = {}) {
  const topic = `settle-${(topics += 1)}`
  const subscription = await gateway.subscribe(topic, { leaseSeconds: 30 })
  await publish(database, topic, options)
  return { topic, subscription, job: await next(subscription) }
}

async function next(subscription: string): Promise<Job> {
  return jobOf(await gateway.pull(subscription, { wait: 50 }))
}

function seconds(from: unknown, to: unknown): number {
  return (Date.parse(String(to)) - (from as Date).getTime()) / 1000
}

test('a heartbeat renews the lease, keeps progress, and tells of a cancel', async () => {
  const { job } = await held()
  const now = await database.value('select clock_timestamp()')
  const plain = await gateway.settle(job, 'heartbeat', { progress: { percent: 5 } })
  expect(plain.status).toBe(200)
  expect(plain.body).toEqual({ leaseExpiresAt: expect.any(String) as string, cancel: null })
  expect(Math.round(seconds(now, plain.body.leaseExpiresAt))).toBe(30)
  const longer = await gateway.settle(job, 'heartbeat', { leaseSeconds: 600 })
  expect(Math.round(seconds(now, longer.body.leaseExpiresAt) / 10)).toBe(60)
  expect(await gateway.job(job.id)).toMatchObject({ progress: { percent: 5 }, state: 'running' })
  const cancel = await gateway.request('POST', `/jobs/${job.id}/cancel`, {
    json: { reason: 'changed my mind' },
  })
  expect([cancel.status, cancel.body]).toEqual([200, { state: 'running' }])
  const told = await gateway.settle(job, 'heartbeat')
  expect(told.body.cancel).toEqual({ reason: 'changed my mind' })
  expect((await gateway.settle(job, 'fail', { error: 'stopped' })).body).toEqual({ state: 'cancelled' })
})

test('complete is final, and the same lease again gives the same answer', async () => {
  const { job } = await held()
  const answers = [
    await gateway.settle(job, 'complete', { result: [1] }),
    await gateway.settle(job, 'complete'),
  ]
  expect(answers.map(({ status, body }) => [status, body])).toEqual([
    [200, { state: 'succeeded' }],
    [200, { state: 'succeeded' }],
  ])
  expect(await gateway.job(job.id)).toMatchObject({ state: 'succeeded', result: [1], pending: null })
})

test('fail schedules the next attempt, repeats its answer, and ends with the last attempt', async () => {
  const { subscription, job } = await held({ max_attempts: 2 })
  const first = await gateway.settle(job, 'fail', { error: 'no luck', retryAfterSeconds: 0 })
  expect(first.body).toEqual({ state: 'ready' })
  const second = await next(subscription)
  expect(second).toMatchObject({ id: job.id, attempt: 2 })
  // The first lease's word is repeated, though the job is in other hands by now.
  expect((await gateway.settle(job, 'fail', { error: 'no luck' })).body).toEqual({ state: 'ready' })
  const last = await gateway.settle(second, 'fail', { error: 'again', retryAfterSeconds: 1 })
  expect(last.body).toEqual({ state: 'failed' })
  expect(await gateway.job(job.id)).toMatchObject({
    state: 'failed',
    attempts: 2,
    lastError: 'again',
    history: [
      { attempt: 1, outcome: 'failed', error: 'no luck', state: 'ready' },
      { attempt: 2, outcome: 'failed', error: 'again', state: 'failed' },
    ],
  })
})

test('fail with a pause says when the job is due, and with retry false it is the last word', async () => {
  const { job } = await held()
  const now = await database.value('select clock_timestamp()')
  const paused = await gateway.settle(job, 'fail', { error: 'later', retryAfterSeconds: 3600 })
  expect(paused.body.state).toBe('scheduled')
  expect(Math.round(seconds(now, paused.body.dueAt) / 60)).toBe(60)
  expect((await gateway.settle(job, 'fail', { error: 'later' })).body).toEqual(paused.body)
  expect((await gateway.job(job.id)).pending).toBe('retry-later')
  const other = await held()
  expect((await gateway.settle(other.job, 'fail', { error: 'no', retry: false })).body).toEqual({
    state: 'failed',
  })
})

test('release gives the job back without spending an attempt, at once or after a delay', async () => {
  const { subscription, job } = await held()
  expect((await gateway.settle(job, 'release')).body).toEqual({ state: 'ready' })
  expect((await gateway.settle(job, 'release')).body).toEqual({ state: 'ready' })
  const again = await next(subscription)
  expect(again).toMatchObject({ id: job.id, attempt: 1, redelivered: true })
  expectProblem(await gateway.settle(job, 'release'), 409, 'lease-lost')
  const delayed = await gateway.settle(again, 'release', { delaySeconds: 3600 })
  expect(delayed.body).toMatchObject({ state: 'scheduled', dueAt: expect.any(String) as string })
})

test('cancel ends a job that has not started, at once; retry drives it again', async () => {
  const topic = 'cancel-unstarted'
  const subscription = await gateway.subscribe(topic)
  const id = await publish(database, topic)
  const cancelled = await gateway.request('POST', `/jobs/${id}/cancel`)
  expect([cancelled.status, cancelled.body]).toEqual([200, { state: 'cancelled' }])
  expect((await gateway.pull(subscription, { wait: 0 })).status).toBe(204)
  expect(await gateway.job(id)).toMatchObject({ state: 'cancelled', cancel: { reason: 'cancelled' } })
  expect((await gateway.request('POST', `/jobs/${id}/retry`)).body).toEqual({ state: 'ready' })
  const job = await next(subscription)
  expect(job).toMatchObject({ id, attempt: 1 })
  await gateway.settle(job, 'complete')
  expectProblem(await gateway.request('POST', `/jobs/${id}/retry`), 409, 'job-ended')
  expect((await gateway.request('POST', `/jobs/${id}/cancel`)).body).toEqual({ state: 'succeeded' })
})

const verbs = [
  ['heartbeat', {}],
  ['complete', {}],
  ['fail', { error: 'x' }],
  ['release', {}],
] as const

test('a lease is stale once the job was claimed again: 409 for every verb, and nothing changes', async () => {
  const { subscription, job } = await held()
  await endLease(database, job.id)
  await database.query('select pullgate.run_due(10, null)')
  const owner = await next(subscription)
  expect(owner).toMatchObject({ id: job.id, attempt: 2 })
  for (const [verb, fields] of verbs) {
    expectProblem(await gateway.settle(job, verb, fields), 409, 'lease-lost')
    expectProblem(await gateway.settle({ id: job.id, lease: noLease }, verb, fields), 409, 'lease-lost')
  }
  expect(await gateway.job(job.id)).toMatchObject({ state: 'running', attempts: 2 })
  expect((await gateway.settle(owner, 'complete')).status).toBe(200)
})

test('until the job is claimed again, a lease that has ended still counts', async () => {
  const { job } = await held()
  await endLease(database, job.id)
  await database.query('select pullgate.run_due(10, null)')
  expect(await stateOf(database, job.id)).toBe('ready')
  expect((await gateway.settle(job, 'heartbeat')).status).toBe(200)
  expect(await stateOf(database, job.id)).toBe('running')
  expect((await gateway.settle(job, 'complete')).status).toBe(200)
})

test('an unknown job is 404 for every call', async () => {
  for (const id of ['987654321', '9223372036854775808', 'abc', '-1', '%00', '1e3']) {
    for (const [verb, fields] of verbs) {
      expectProblem(await gateway.settle({ id, lease: noLease }, verb, fields), 404, 'job-not-found')
    }
    expectProblem(await gateway.request('GET', `/jobs/${id}`), 404, 'job-not-found')
    expectProblem(await gateway.request('POST', `/jobs/${id}/cancel`), 404, 'job-not-found')
    expectProblem(await gateway.request('POST', `/jobs/${id}/retry`), 404, 'job-not-found')
  }
})

test('the outcome of an automatically acknowledged job is told without a lease', async () => {
  const topic = 'told'
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  const ids = [await publish(database, topic), await publish(database, topic, { dedupe_key: 'k' })]
  for (const id of ids) expect(jobOf(await gateway.pull(subscription, { wait: 50 })).id).toBe(id)
  for (const id of ids) await until(async () => expect(await stateOf(database, id)).toBe('delivered'))
  const [first = '', second = ''] = ids
  for (const repeat of [1, 2]) {
    const told = await gateway.settle({ id: first }, 'complete', { result: { repeat } })
    expect([told.status, told.body]).toEqual([200, { state: 'succeeded' }])
  }
  expect((await gateway.settle({ id: second }, 'fail', { error: 'no' })).body).toEqual({ state: 'failed' })
  expect(await gateway.job(first)).toMatchObject({ state: 'succeeded', result: { repeat: 1 } })
  const explicit = await held()
  expectProblem(await gateway.settle({ id: explicit.job.id }, 'complete'), 409, 'lease-lost')
})

test('settles in a pull: each has its status, the refused stop no other, and the answer always has them', async () => {
  const [done, failed, released, alive] = [await held(), await held(), await held(), await held()]
  const element = ({ job: { id, lease } }: { job: Job }, fields = {}) => ({ id, lease, ...fields })
  const subscription = await gateway.subscribe('settles-in-a-pull')
  const json = {
    complete: [element(done, { result: 1 }), { id: done.job.id, lease: noLease }],
    fail: [element(failed, { error: 'x', retry: false }), { id: '999999999', lease: noLease, error: 'x' }],
    release: [element(released)],
    heartbeat: [element(alive, { progress: 'half' })],
  }
  const settled = [
    { id: done.job.id, status: 200 },
    { id: done.job.id, status: 409, code: 'lease-lost' },
    { id: failed.job.id, status: 200 },
    { id: '999999999', status: 404, code: 'job-not-found' },
    { id: released.job.id, status: 200 },
    { id: alive.job.id, status: 200 },
  ]
  // A refused settle ends the wait.
  const answer = await gateway.pull(subscription, { max: 2, wait: 50, json })
  expect([answer.status, answer.body]).toEqual([200, { jobs: [], settled, more: false }])
  const states = [done, failed, released, alive].map(({ job }) => stateOf(database, job.id))
  expect(await Promise.all(states)).toEqual(['succeeded', 'failed', 'ready', 'running'])
  // A client that saw no answer sends the same again. The one job is there by now.
  await publish(database, 'settles-in-a-pull')
  const repeated = await gateway.pull(subscription, { max: 1, wait: 50, json })
  expect(repeated.body).toMatchObject({ settled, more: true })
  expect(jobsOf(repeated)).toHaveLength(1)
})

test('a settle that Postgres has no place for stops none of those that share its statement', async () => {
  const jobs = [await held(), await held(), await held()]
  const direct = openDatabase({
    ...{ url: database.url, applicationName: 'settles', poolMax: 2, emit: () => undefined },
    ...{ connectTimeoutMs: 10_000, statementTimeoutMs: 10_000 },
  })
  const { fail } = createSettleStore(direct)
  const errors = ['first, alone in its statement', 'nul: \u0000', 'with the one before']
  const settled = await Promise.allSettled(
    jobs.map(({ job: { id, lease } }, n) => fail(id, lease, errors[n] ?? '', false, null)),
  )
  await direct.close()
  expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  const states = jobs.map(({ job }) => stateOf(database, job.id))
  expect(await Promise.all(states)).toEqual(['failed', 'running', 'failed'])
})

test('a pull with a settle that is not valid is refused by name, and applies none', async () => {
  const jobs = [await held(), await held()]
  const subscription = await gateway.subscribe('nul-in-a-pull')
  const fail = jobs.map(({ job: { id, lease } }, n) => ({ id, lease, error: n === 1 ? '\u0000' : 'no' }))
  const answer = await gateway.pull(subscription, { max: 1, wait: 0, json: { fail } })
  expectProblem(answer, 400, 'invalid-request')
  expect(answer.body.errors).toMatchObject([{ field: 'fail.1.error' }])
  const states = jobs.map(({ job }) => stateOf(database, job.id))
  expect(await Promise.all(states)).toEqual(['running', 'running'])
})

test('a settle of an id that no job can have is 404, as the single call is', async () => {
  const subscription = await gateway.subscribe('beyond')
  const id = '9999999999999999999'
  const json = { complete: [{ id, lease: noLease }] }
  const answer = await gateway.pull(subscription, { max: 1, wait: 0, json })
  expect(answer.body.settled).toEqual([{ id, status: 404, code: 'job-not-found' }])
})

test('settles are applied although the pull is refused, and are in that answer', async () => {
  const subscription = await gateway.subscribe('refused-pull')
  await gateway.request('DELETE', `/subscriptions/${subscription}`)
  for (const [id, status, code] of [
    [subscription, 410, 'subscription-ended'],
    [noLease, 404, 'subscription-not-found'],
  ] as const) {
    const { job } = await held()
    const json = { complete: [{ id: job.id, lease: job.lease }] }
    const answer: Answer = await gateway.pull(id, { max: 1, json })
    expectProblem(answer, status, code)
    expect(answer.body.settled).toEqual([{ id: job.id, status: 200 }])
    expect(await stateOf(database, job.id)).toBe('succeeded')
  }
})

test('without settles an empty wait is 204, also for a batch; with them it is 200', async () => {
  const subscription = await gateway.subscribe('empty-waits')
  const { job } = await held()
  expect((await gateway.pull(subscription, { wait: 0, max: 5 })).status).toBe(204)
  expect((await gateway.pull(subscription, { wait: 0, max: 5, json: { complete: [] } })).status).toBe(204)
  const json = { heartbeat: [{ id: job.id, lease: job.lease }] }
  const answer = await gateway.pull(subscription, { wait: 0, max: 5, json })
  expect(answer.body).toEqual({ jobs: [], settled: [{ id: job.id, status: 200 }], more: false })
})
