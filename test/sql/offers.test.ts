import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claim,
  claimOne,
  complete,
  counts,
  endOffer,
  fail,
  heartbeat,
  left,
  publish,
  readJob,
  refusal,
  release,
  row,
  rows,
  runningJob,
  stateOf,
  subscribe,
  value,
} from './jobs.ts'

/** Two-phase delivery: what subscriptions with offerSeconds claim is only offered until it is accepted. */
const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})

let count = 0
const topic = () => `offer_${++count}`

describe('a claim for a subscription with offerSeconds', () => {
  test('only offers the job, for so long', async () => {
    const name = topic()
    const job = await runningJob(session, name, { lease: 300, offer: 15 })
    expect(job).toMatchObject({ attempt: 1, lease_seconds: 300, redelivered: false })
    expect(await counts(session, job.id)).toEqual(['offered', 0, 1])
    expect(await left(session, job.id)).toEqual({ ends: 15, looked: 15 })
    expect(await value(session, 'select offered from pullgate.topics where topic = $1', [name])).toBe('1')
    expect(await row(session, 'select state, pending from pullgate.read_job($1)', [job.id])).toEqual({
      state: 'offered',
      pending: 'waiting-for-acceptance',
    })
    expect(
      await value(session, 'select jobs_held from pullgate.read_subscriptions() where topics = $1', [[name]]),
    ).toBe(1)
  })
  test('shares a statement with claims that run their jobs at once', async () => {
    const name = topic()
    const [offering, plain] = [await subscribe(session, name, { offer: 5 }), await subscribe(session, name)]
    for (let job = 0; job < 2; job++) await publish(session, name)
    const claimed = await rows<{ id: string; attempt: number }>(
      session,
      `select id, attempt from pullgate.claim(array_fill(pullgate.topic_id($1), array[2]), $2, '{1,1}', '{}', '{}')
        where id is not null order by slot`,
      [name, [offering, plain]],
    )
    expect(claimed.map(({ attempt }) => attempt)).toEqual([1, 1])
    expect(await Promise.all(claimed.map(({ id }) => stateOf(session, id)))).toEqual(['offered', 'running'])
  })
  test('needs explicit acknowledgement, and from 5 to 60 seconds', async () => {
    const sql = 'select pullgate.subscribe($1, null, $2, 60, null, $3)'
    for (const [ack, seconds, constraint] of [
      ['auto', 15, 'subscription_offer_ack'],
      ['explicit', 4, 'subscription_offer_seconds'],
      ['explicit', 61, 'subscription_offer_seconds'],
    ]) {
      expect(await refusal(session, sql, [[topic()], ack, seconds])).toMatchObject({
        code: '23514',
        constraint,
      })
    }
  })
  test('is a setting: the name of a subscription without it is taken', async () => {
    const name = topic()
    await subscribe(session, name, { name, offer: 15 })
    await subscribe(session, name, { name, offer: 15 })
    const refused = await refusal(session, `select pullgate.subscribe($1, $2, 'explicit', 60, null)`, [
      [name],
      name,
    ])
    expect(refused.code).toBe('PL009')
  })
})

describe('the first heartbeat', () => {
  test('accepts the offer: an attempt begins, under the whole lease', async () => {
    const job = await runningJob(session, topic(), { lease: 90, offer: 15 })
    const answer = await heartbeat(session, job)
    expect(answer).toMatchObject({ status: 'ok', cancel_reason: null })
    expect(await counts(session, job.id)).toEqual(['running', 1, 1])
    expect(await left(session, job.id)).toEqual({ ends: 90, looked: 90 })
    await heartbeat(session, job)
    expect(await counts(session, job.id)).toEqual(['running', 1, 1])
  })
  test('also when it asks for less than was left of the offer', async () => {
    const job = await runningJob(session, topic(), { offer: 60 })
    await heartbeat(session, job, 10)
    expect(await counts(session, job.id)).toEqual(['running', 1, 1])
    expect(await left(session, job.id)).toEqual({ ends: 10, looked: 10 })
  })
  test('also among many', async () => {
    const name = topic()
    const subscription = await subscribe(session, name, { lease: 90, offer: 15 })
    for (let job = 0; job < 3; job++) await publish(session, name)
    const jobs = await claim(session, name, subscription, 3)
    const sql = `select status from pullgate.heartbeats($1::bigint[], $2::uuid[], '{null,null,null}', '{null,null,null}')`
    const answers = await rows(session, sql, [jobs.map(({ id }) => id), jobs.map(({ lease }) => lease)])
    expect(answers).toEqual([{ status: 'ok' }, { status: 'ok' }, { status: 'ok' }])
    for (const { id } of jobs) {
      expect(await counts(session, id ?? '')).toEqual(['running', 1, 1])
      expect(await left(session, id ?? '')).toEqual({ ends: 90, looked: 90 })
    }
  })
  test('from then on it is lost like any other: the attempt spent, as on_lost says', async () => {
    const job = await runningJob(session, topic(), { offer: 15, on_lost: 'orphan' })
    await heartbeat(session, job)
    expect(await endOffer(session, job.id)).toMatchObject({ leases_lost: { orphaned: 1 }, offers_ended: {} })
    expect(await counts(session, job.id)).toEqual(['orphaned', 1, 1])
  })
})

describe('a settle accepts the offer, and counts', () => {
  const offered = (options = {}) => runningJob(session, topic(), { offer: 15, ...options })
  test('complete', async () => {
    const job = await offered()
    expect(await complete(session, job)).toMatchObject({ status: 'ok', state: 'succeeded' })
    expect(await counts(session, job.id)).toEqual(['succeeded', 1, 1])
  })
  test('complete, among jobs that run', async () => {
    const name = topic()
    const [offering, plain] = [await subscribe(session, name, { offer: 5 }), await subscribe(session, name)]
    for (let job = 0; job < 2; job++) await publish(session, name)
    const [one, two] = [await claimOne(session, name, offering), await claimOne(session, name, plain)]
    const sql = `select status from pullgate.settle_completes($1::bigint[], $2::uuid[], '{null,null}')`
    expect(await rows(session, sql, [[one.id, two.id], [one.lease, two.lease]])).toEqual([
      { status: 'ok' },
      { status: 'ok' },
    ]) // prettier-ignore
    expect([await counts(session, one.id), await counts(session, two.id)]).toEqual([['succeeded', 1, 1], ['succeeded', 1, 1]]) // prettier-ignore
  })
  test('fail, the last attempt included', async () => {
    const job = await offered()
    expect(await fail(session, job, { after: 60 })).toMatchObject({ status: 'ok', state: 'scheduled' })
    expect(await counts(session, job.id)).toEqual(['scheduled', 1, 1])
    const last = await offered({ max_attempts: 1 })
    expect(await fail(session, last)).toMatchObject({ status: 'ok', state: 'failed' })
    expect(await counts(session, last.id)).toEqual(['failed', 1, 1])
  })
  test('release, which costs no attempt', async () => {
    const job = await offered()
    expect(await release(session, job)).toMatchObject({ status: 'ok', state: 'ready' })
    expect(await counts(session, job.id)).toEqual(['ready', 0, 1])
  })
  test('the end of the subscription releases it as well', async () => {
    const name = topic()
    const subscription = await subscribe(session, name, { offer: 15 })
    const id = await publish(session, name)
    await claimOne(session, name, subscription)
    await rows(session, 'select pullgate.unsubscribe($1, true)', [subscription])
    expect(await counts(session, id)).toEqual(['ready', 0, 1])
  })
})

describe('an offer that did not reach its executor', () => {
  test.each(['requeue', 'orphan', 'fail'])(
    'goes back as if it had not been made, also where a byte was written, under %s',
    async (on_lost) => {
      for (const way of ['give_back', 'doubt'] as const) {
        const job = await runningJob(session, topic(), { offer: 15, on_lost })
        expect(await byLease(session, way, [job])).toBe(1)
        expect(await readJob(session, job.id)).toMatchObject({
          ...{ state: 'ready', attempts: 0, deliveries: 0, unaccepted: 0, lease: null },
        })
        expect(await heartbeat(session, job)).toMatchObject({ status: 'lost' })
      }
    },
  )
})

test('a cancel of an offered job is at once: accepting it is refused', async () => {
  const job = await runningJob(session, topic(), { offer: 15 })
  expect(await value(session, `select pullgate.cancel($1, 'not needed')`, [job.id])).toBe('cancelled')
  expect(await heartbeat(session, job)).toMatchObject({ status: 'lost' })
  expect(await counts(session, job.id)).toEqual(['cancelled', 0, 1])
})
