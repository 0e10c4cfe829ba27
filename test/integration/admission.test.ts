import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, noBackstop } from '../support/gateway.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import type { Answer } from '../support/http.ts'

const database = useDatabase()

function retryAfter(answer: Answer): number {
  const text = answer.headers.get('retry-after') ?? ''
  expect(text).toMatch(/^[1-9]\d*$/)
  return Number(text)
}

test('a pull beyond maxParked is 429 with Retry-After; other subscriptions are not touched', async () => {
  const gateway = await gatewayFor(database, noBackstop)
  const subscription = await gateway.subscribe('max-parked', { maxParked: 2 })
  const parked = [1, 2].map(() => gateway.pull(subscription, { wait: 50 }))
  await until(async () => expect(await gateway.metric('pullgate_pulls_parked')).toBe(2))
  const refused = await gateway.pull(subscription, { wait: 50 })
  expectProblem(refused, 429, 'too-many-parked')
  expect(retryAfter(refused)).toBeLessThanOrEqual(5)
  const neighbour = await gateway.subscribe('max-parked')
  expect((await gateway.pull(neighbour, { wait: 0 })).status).toBe(204)
  expect(await gateway.metric('pullgate_pulls_total', { outcome: 'rejected' })).toBe(1)
  // Who was parked stays so, and a place that is left can be taken.
  await publish(database, 'max-parked')
  jobOf(await Promise.race(parked))
  const again = gateway.pull(subscription, { wait: 50 })
  await until(async () => expect(await gateway.metric('pullgate_pulls_parked')).toBe(2))
  await database.query('select pullgate.publish_many($1, $2::text[])', ['max-parked', ['1', '2']])
  for (const pull of [...parked, again]) jobOf(await pull)
  const use = await gateway.request('GET', `/subscriptions/${subscription}`)
  expect(use.body).toMatchObject({ maxParked: 2, parked: 0, jobsHeld: 3 })
})

test("a pull beyond the process's ceiling is 503 with Retry-After, its settles applied", async () => {
  const gateway = await gatewayFor(database, { ...noBackstop, PULLGATE_MAX_PARKED: 1 })
  const subscription = await gateway.subscribe('ceiling')
  await publish(database, 'ceiling')
  const job = jobOf(await gateway.pull(subscription, { wait: 0 }))
  const parked = gateway.pull(subscription, { wait: 50 })
  await until(async () => expect(await gateway.metric('pullgate_pulls_parked')).toBe(1))
  const json = { complete: [{ id: job.id, lease: job.lease }] }
  const refused = await gateway.pull(await gateway.subscribe('ceiling-other'), { max: 1, json })
  expectProblem(refused, 503, 'overloaded')
  expect(retryAfter(refused)).toBeLessThanOrEqual(5)
  expect(refused.body.settled).toEqual([{ id: job.id, status: 200 }])
  expect(await gateway.metric('pullgate_pulls_parked_limit')).toBe(1)
  const id = await publish(database, 'ceiling')
  expect(jobOf(await parked).id).toBe(id)
})

test('the same name is the same subscription on every gateway, with other settings a conflict', async () => {
  const [gateway, other] = [await gatewayFor(database), await gatewayFor(database)]
  const settings = { name: 'runners', leaseSeconds: 120, maxParked: 7 }
  const id = await gateway.subscribe('named', settings)
  expect(await gateway.subscribe('named', settings)).toBe(id)
  expect(await other.subscribe('named', settings)).toBe(id)
  const anonymous = [await gateway.subscribe('named'), await gateway.subscribe('named')]
  expect(new Set([id, ...anonymous]).size).toBe(3)
  for (const change of [
    { leaseSeconds: 60 },
    { ack: 'auto', leaseSeconds: undefined },
    { offerSeconds: 9 },
    { maxParked: 8 },
    { topic: 'named-other' },
  ]) {
    const json = { topic: 'named', ack: 'explicit', ...settings, ...change }
    expectProblem(await gateway.request('POST', '/subscriptions', { json }), 409, 'subscription-conflict')
  }
  // A name is free again once its subscription has ended.
  await gateway.request('DELETE', `/subscriptions/${id}`)
  expect(await gateway.subscribe('named', { ...settings, leaseSeconds: 60 })).not.toBe(id)
})

test('the effective settings come back, defaults included, with and without the trailing slash', async () => {
  const gateway = await gatewayFor(database)
  for (const path of ['/subscriptions', '/subscriptions/']) {
    const answer = await gateway.request('POST', path, { json: { topic: 'defaults' } })
    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      ...{
        topics: ['defaults'],
        ack: 'auto',
        name: null,
        leaseSeconds: 60,
        offerSeconds: null,
        maxParked: null,
      },
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) as string,
    })
  }
})
