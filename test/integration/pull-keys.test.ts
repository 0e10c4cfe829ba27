import { expect, test } from 'vitest'
import { publish, readJob, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { blackHoleProxy } from '../support/gateway-proxy.ts'
import { claimUnderWay, gatewayFor, noBackstop, useGateway } from '../support/gateway.ts'
import { apiOf, expectProblem, jobOf, jobsOf, until } from '../support/http.ts'

// Idempotency-Key on a pull: an answer that was lost is had again.
const database = useDatabase()
const gateway = useGateway(database, noBackstop)
const withKey = (key: string) => ({ headers: { 'Idempotency-Key': key } })
const superseded = () => gateway.metric('pullgate_pulls_total', { outcome: 'superseded' })

test('an answer that a proxy swallowed is had again, from here and from another gateway', async () => {
  const topic = 'swallowed'
  const [subscription, other] = [await gateway.subscribe(topic), await gatewayFor(database, noBackstop)]
  const proxy = await blackHoleProxy(gateway.url)
  const lost = apiOf(new URL(proxy.url).origin)
    .pull(subscription, { wait: 50, ...withKey('k') })
    .catch(() => undefined)
  await gateway.parked(1)
  proxy.swallow()
  const id = await publish(database, topic, { spec: '{"n":  1}', on_lost: 'orphan' })
  await until(async () => expect(await stateOf(database, id)).toBe('running'))
  const { lease } = await readJob(database, id)
  for (const one of [gateway, other]) {
    const again = await one.pull(subscription, { wait: 0, ...withKey('k') })
    expect(jobOf(again)).toMatchObject({ id, lease, attempt: 1 })
    expect(again.text).toContain('"jobSpec":{"n":  1}')
    expect(again.body).not.toHaveProperty('redelivered')
  }
  // What the first gateway finds out of its connection counts no more.
  proxy.cut()
  await lost
  expect(await gateway.settle({ id, lease: String(lease) }, 'complete')).toMatchObject({ status: 200 })
  expect(await readJob(database, id)).toMatchObject({ state: 'succeeded', attempts: 1, deliveries: 1 })
})

test('a key is good for what is not settled; then, as after an empty answer, it starts afresh', async () => {
  const subscription = await gateway.subscribe('afresh')
  const pull = () => gateway.pull(subscription, { max: 3, wait: 0, ...withKey('k') })
  expect((await pull()).status).toBe(204)
  const ids = [
    await publish(database, 'afresh'),
    await publish(database, 'afresh'),
    await publish(database, 'afresh'),
  ]
  const first = jobsOf(await pull())
  expect(first.map(({ id }) => id)).toEqual(ids)
  const later = await publish(database, 'afresh')
  for (let settled = 0; settled < 3; settled++) {
    expect(jobsOf(await pull())).toEqual(first.slice(settled))
    const job = first[settled]
    if (job !== undefined)
      await gateway.settle(job, settled === 1 ? 'fail' : 'complete', settled === 1 ? { error: '' } : {})
  }
  expect(jobsOf(await pull()).map(({ id }) => id)).toEqual([later])
})

test('no other key and no other subscription gets it, nor does a pull without a key', async () => {
  const [one, two] = [await gateway.subscribe('apart'), await gateway.subscribe('apart')]
  await publish(database, 'apart')
  jobOf(await gateway.pull(one, { wait: 50, ...withKey('k') }))
  for (const [subscription, options] of [
    [one, withKey('K')],
    [one, {}],
    [two, withKey('k')],
  ] as const) {
    expect((await gateway.pull(subscription, { wait: 0, ...options })).status).toBe(204)
  }
})

test('sending the same body again repairs a lost answer: settled once, handed out once', async () => {
  const subscription = await gateway.subscribe('same-body')
  await publish(database, 'same-body')
  const [done] = jobsOf(await gateway.pull(subscription, { max: 1, wait: 50 }))
  const id = await publish(database, 'same-body')
  const json = { complete: [{ id: done?.id, lease: done?.lease, result: 1 }] }
  const answers = []
  for (let time = 0; time < 2; time++) {
    answers.push(await gateway.pull(subscription, { max: 1, wait: 50, json, ...withKey('k') }))
  }
  expect(answers[0]?.body).toMatchObject({ jobs: [{ id }], settled: [{ id: done?.id, status: 200 }] })
  expect(answers[1]?.body).toEqual(answers[0]?.body)
})

test('a newer pull with the key takes the place of its ghost, also where that was the last', async () => {
  const subscription = await gateway.subscribe('ghost', { maxParked: 1 })
  const before = await superseded()
  const ghost = gateway.pull(subscription, { wait: 50, ...withKey('k') })
  await gateway.parked(1)
  const pull = gateway.pull(subscription, { wait: 50, ...withKey('k') })
  expectProblem(await ghost, 409, 'superseded')
  expect(await superseded()).toBe(before + 1)
  await gateway.parked(1)
  const id = await publish(database, 'ghost')
  expect(jobOf(await pull).id).toBe(id)
})

test('a ghost that is still settling when the newer pull comes is superseded all the same, its settles applied', async () => {
  const subscription = await gateway.subscribe('ghost-settles')
  const id = await publish(database, 'ghost-settles')
  const done = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const session = await database.session()
  await session.query('begin')
  await session.query('select from pullgate.job where id = $1 for update', [id])
  const json = { complete: [{ id, lease: done.lease }] }
  const ghost = gateway.pull(subscription, { max: 1, wait: 50, json, ...withKey('k') })
  await until(async () => {
    const waiting = `select count(*)::integer from pg_stat_activity
      where wait_event_type = 'Lock' and query like '%settle_completes%' and datname = current_database()`
    expect(await database.value(waiting)).toBe(1)
  })
  const pull = gateway.pull(subscription, { wait: 50, ...withKey('k') })
  await until(async () => expect(await gateway.metric('pullgate_pulls_parked')).toBe(1))
  await session.query('commit')
  const answer = await ghost
  expectProblem(answer, 409, 'superseded')
  expect(answer.body.settled).toEqual([{ id, status: 200 }])
  const next = await publish(database, 'ghost-settles')
  expect(jobOf(await pull).id).toBe(next)
})

test('a claim that is under way for the ghost serves the newer pull', async () => {
  const subscription = await gateway.subscribe('ghost-claims')
  const ghost = gateway.pull(subscription, { wait: 50, ...withKey('k') })
  await gateway.parked(1, subscription)
  const { id, release } = await claimUnderWay(database, 'ghost-claims')
  const pull = gateway.pull(subscription, { wait: 50, ...withKey('k') })
  expectProblem(await ghost, 409, 'superseded')
  await gateway.parked(1)
  const returned = await gateway.metric('pullgate_deliveries_total', { outcome: 'undelivered' })
  await release()
  const job = jobOf(await pull)
  expect(job.id).toBe(id)
  expect(await gateway.metric('pullgate_deliveries_total', { outcome: 'undelivered' })).toBe(returned)
  expect(jobOf(await gateway.pull(subscription, { wait: 0, ...withKey('k') }))).toEqual(job)
})

test('many pulls with one key at once: one is answered, with a job whose lease is good, the others are superseded', async () => {
  const subscription = await gateway.subscribe('many')
  const ids = []
  for (let round = 0; round < 10; round++) ids.push(await publish(database, 'many'))
  for (const id of ids) {
    const pulls = Array.from({ length: 8 }, () => gateway.pull(subscription, { wait: 50, ...withKey('k') }))
    const answers = await Promise.all(pulls)
    const given = answers.filter(({ status }) => status === 200).map(jobOf)
    expect(new Set(given.map(({ lease }) => lease)).size).toBe(1)
    expect(answers.filter(({ status }) => status !== 200).map(({ status }) => status)).toEqual(
      Array<number>(8 - given.length).fill(409),
    )
    const [job] = given
    if (job === undefined) throw new Error('nobody was given a job')
    expect(ids).toContain(job.id)
    expect((await gateway.settle(job, 'complete')).status, id).toBe(200)
  }
})

test('a client that breaks off again and again, and asks again at once, ends with a lease that is good', async () => {
  const topic = 'breaks-off'
  const subscription = await gateway.subscribe(topic)
  // More than the socket buffers of both sides hold: breaking off leaves the answer unfinished.
  const spec = JSON.stringify('x'.repeat(4_000_000))
  await database.query('update pullgate.setting set job_spec_max_bytes = 10000000')
  for (let round = 0; round < 10; round++) {
    const on_lost = ['requeue', 'orphan', 'fail'][round % 3] ?? ''
    const id = await publish(database, topic, { spec, on_lost })
    const away = new AbortController()
    const path = `${gateway.url}/subscriptions/${subscription}?wait=50`
    const key = `round ${round}`.replace(' ', '-')
    const answer = await fetch(path, { method: 'PATCH', ...withKey(key), signal: away.signal })
    expect(answer.status).toBe(200)
    away.abort()
    const job = jobOf(await gateway.pull(subscription, { wait: 50, ...withKey(key) }))
    expect(job.id).toBe(id)
    expect((await gateway.settle(job, 'heartbeat')).status).toBe(200)
    expect((await gateway.settle(job, 'complete')).status).toBe(200)
  }
})

test('a key needs explicit acknowledgement, and 1 to 255 visible ASCII characters', async () => {
  const auto = await gateway.subscribe('refused', { ack: 'auto' })
  const explicit = await gateway.subscribe('refused')
  for (const [subscription, key] of [
    [auto, 'k'],
    [explicit, ''],
    [explicit, 'two words'],
    [explicit, 'é'],
    [explicit, 'x'.repeat(256)],
  ] as const) {
    const answer = await gateway.pull(subscription, { wait: 0, ...withKey(key) })
    expectProblem(answer, 400, 'invalid-request')
    expect(answer.body.errors).toMatchObject([{ field: 'Idempotency-Key' }])
  }
  for (const key of ['x'.repeat(255), '"!~"']) {
    expect((await gateway.pull(explicit, { wait: 0, ...withKey(key) })).status).toBe(204)
  }
})
