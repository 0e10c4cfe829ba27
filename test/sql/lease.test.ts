import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claimOne,
  complete,
  endLease,
  fail,
  heartbeat,
  left,
  publish,
  readJob,
  release,
  row,
  rows,
  runDue,
  runningJob,
  stateOf,
  subscribe,
  value,
} from './jobs.ts'

const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})
// On a busy machine leases of earlier tests end by themselves, and run_due tells of them.
beforeEach(() => rows(session, 'truncate pullgate.job, pullgate.history'))

let count = 0
const topic = () => `lease_${++count}`

describe('a heartbeat', () => {
  test("renews the lease by the subscription's seconds, or those it asks for", async () => {
    const job = await runningJob(session, topic(), { lease: 90 })
    await heartbeat(session, job)
    expect(await left(session, job.id)).toEqual({ ends: 90, looked: 90 })
    const answer = await heartbeat(session, job, 600)
    expect(await left(session, job.id)).toEqual({ ends: 600, looked: 90 })
    expect(answer).toMatchObject({ status: 'ok', cancel_reason: null })
    expect(answer.lease_ends_at).toEqual(
      await value(session, 'select lease_ends_at from pullgate.job where id = $1', [job.id]),
    )
  })
  test('that shortens the lease moves the look at it', async () => {
    const job = await runningJob(session, topic(), { lease: 600 })
    await heartbeat(session, job, 10)
    expect(await left(session, job.id)).toEqual({ ends: 10, looked: 10 })
    await heartbeat(session, job, 300)
    expect(await left(session, job.id)).toEqual({ ends: 300, looked: 10 })
  })
  test('that outlived the look at its lease has the look moved, not the lease lost', async () => {
    const job = await runningJob(session, topic())
    await rows(session, 'update pullgate.job set lease_check_at = clock_timestamp() where id = $1', [job.id])
    await heartbeat(session, job, 120)
    expect(await runDue(session)).toMatchObject({ leases_lost: {}, topics: [] })
    expect(await left(session, job.id)).toEqual({ ends: 120, looked: 120 })
  })
  test('keeps the last progress when it brings none', async () => {
    const job = await runningJob(session, topic())
    await heartbeat(session, job, 60, '{"done":  1}')
    await heartbeat(session, job)
    expect(await readJob(session, job.id)).toMatchObject({ progress: '{"done":  1}' })
  })
  test('is a heap-only update, and leaves a large spec where it is', async () => {
    const job = await runningJob(session, topic(), { spec: JSON.stringify('x'.repeat(100_000)) })
    const sql = `select pg_stat_get_xact_tuples_updated(c.oid)::int as updated,
        pg_stat_get_xact_tuples_hot_updated(c.oid)::int as hot,
        pg_stat_get_xact_tuples_inserted(c.reltoastrelid)::int as toasted
      from pg_class c where c.oid = 'pullgate.job'::regclass`
    await session.query('vacuum pullgate.job')
    await session.query('begin')
    const before = await row<Record<string, number>>(session, sql)
    for (let beat = 1; beat <= 5; beat++) await heartbeat(session, job, 60 + beat, String(beat))
    const after = await row<Record<string, number>>(session, sql)
    await session.query('commit')
    const done = Object.entries(after).map(([key, number]) => [key, number - (before[key] ?? 0)])
    expect(Object.fromEntries(done)).toEqual({ updated: 5, hot: 5, toasted: 0 })
  })
})

describe('the time to the next attempt', () => {
  test.each([1, 2, 5, 9, 30])(
    'after attempt %i is random, from 1 s to 2^attempt s, at most 300 s',
    async (attempt) => {
      const job = await runningJob(session, topic(), { max_attempts: 100 })
      await rows(session, 'update pullgate.job set attempts = $2 where id = $1', [job.id, attempt])
      const delays: number[] = []
      for (let time = 0; time < 60; time++) {
        await session.query('begin')
        await fail(session, job)
        const sql =
          'select extract(epoch from due_at - clock_timestamp())::float8 from pullgate.job where id = $1'
        delays.push(await value<number>(session, sql, [job.id]))
        await session.query('rollback')
      }
      const most = Math.min(300, 2 ** attempt)
      expect(Math.max(...delays)).toBeLessThanOrEqual(most)
      expect(Math.min(...delays)).toBeGreaterThan(0.5)
      expect(Math.max(...delays) - Math.min(...delays)).toBeGreaterThan((most - 1) / 2)
    },
  )
  test('is the one that the executor asks for, 0 being at once', async () => {
    const asked = await runningJob(session, topic())
    await fail(session, asked, { after: 1000 })
    const sql =
      'select 5 * ceil(extract(epoch from due_at - clock_timestamp()) / 5)::int from pullgate.job where id = $1'
    expect(await value(session, sql, [asked.id])).toBe(1000)
    expect(await fail(session, await runningJob(session, topic()), { after: 0 })).toMatchObject({
      state: 'ready',
    })
  })
})

describe('attempts and deliveries', () => {
  const counts = async (id: string) => {
    const { attempts, deliveries } = await readJob(session, id)
    return [attempts, deliveries]
  }
  test('a failure and a lost lease spend both, a release no attempt, a give-back neither', async () => {
    const name = topic()
    const job = await runningJob(session, name)
    const subscription = await subscribe(session, name)
    expect(await counts(job.id)).toEqual([1, 1])
    await byLease(session, 'give_back', [job])
    expect(await counts(job.id)).toEqual([0, 0])
    const released = await claimOne(session, name, subscription)
    expect(released).toMatchObject({ attempt: 1, redelivered: false })
    await release(session, released)
    expect(await counts(job.id)).toEqual([0, 1])
    const failed = await claimOne(session, name, subscription)
    expect(failed).toMatchObject({ attempt: 1, redelivered: true })
    await fail(session, failed, { after: 0 })
    expect(await counts(job.id)).toEqual([1, 2])
    await claimOne(session, name, subscription)
    await endLease(session, job.id)
    await runDue(session)
    expect(await counts(job.id)).toEqual([2, 3])
  })
  test('the last attempt is final, by fail and by a lost lease; retry gives them all again', async () => {
    const name = topic()
    const subscription = await subscribe(session, name)
    const id = await publish(session, name, { max_attempts: 1 })
    expect(await fail(session, await claimOne(session, name, subscription))).toMatchObject({
      state: 'failed',
    })
    await rows(session, 'select pullgate.retry($1)', [id])
    await claimOne(session, name, subscription)
    await endLease(session, id)
    expect(await runDue(session)).toMatchObject({ leases_lost: { failed: 1 }, topics: [] })
    expect(await readJob(session, id)).toMatchObject({
      state: 'failed',
      attempts: 1,
      deliveries: 2,
      live: false,
    })
  })
  test('fail with retry false is final at once', async () => {
    const job = await runningJob(session, topic())
    expect(await fail(session, job, { retry: false })).toEqual({
      status: 'ok',
      state: 'failed',
      due_at: null,
    })
    expect(await readJob(session, job.id)).toMatchObject({
      state: 'failed',
      last_error: 'broke',
      live: false,
    })
  })
})

describe('when a running job is lost', () => {
  const outcomes = { requeue: 'ready', orphan: 'orphaned', fail: 'failed' }
  const cases = Object.entries(outcomes).flatMap(([on_lost, state]) =>
    (['explicit', 'auto'] as const).flatMap((ack) =>
      (['run_due', 'doubt'] as const).map((way) => ({ on_lost, state, ack, way })),
    ),
  )
  /** A response that broke off is no attempt where the job may run again: nobody can have read all of it. */
  const undone = (given: (typeof cases)[number]) =>
    given.way === 'doubt' && given.ack === 'explicit' && given.on_lost === 'requeue'
  test.each(cases)('$on_lost makes it $state ($ack, by $way)', async (given) => {
    const { on_lost, state, ack, way } = given
    const name = topic()
    const job = await runningJob(session, name, { on_lost, ack })
    if (way === 'run_due') {
      await endLease(session, job.id)
      const topics = state === 'ready' ? [await value(session, 'select pullgate.topic_id($1)', [name])] : []
      expect(await runDue(session)).toMatchObject({ topics, leases_lost: { [state]: 1 } })
    } else {
      expect(await byLease(session, 'doubt', [job])).toBe(1)
    }
    const row = await readJob(session, job.id)
    expect(row).toMatchObject({ state, attempts: undone(given) ? 0 : 1, live: state !== 'failed' })
    const outcome = ack === 'auto' || way === 'doubt' ? 'in doubt' : 'lost'
    expect(row['log']).toMatchObject(undone(given) ? [] : [{ attempt: 1, state, outcome }])
    const subscription = await subscribe(session, name)
    const next = await rows(
      session,
      `select id from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], $3, '{}', '{}')`,
      [name, subscription, [5]],
    )
    expect(next).toEqual(state === 'ready' ? [{ id: job.id }] : [])
  })
  test('an orphan keeps its dedupe key until a person decides', async () => {
    const name = topic()
    const job = await runningJob(session, name, { on_lost: 'orphan', dedupe_key: 'k' })
    await byLease(session, 'doubt', [job])
    expect(await publish(session, name, { dedupe_key: 'k' })).toBe(job.id)
    await rows(session, 'select pullgate.complete($1)', [job.id])
    expect(await publish(session, name, { dedupe_key: 'k' })).not.toBe(job.id)
  })
})

describe('a cancel while the job runs', () => {
  const cancelled = async (options = {}) => {
    const job = await runningJob(session, topic(), options)
    expect(await value(session, `select pullgate.cancel($1, 'not needed')`, [job.id])).toBe('running')
    return job
  }
  test('is told by every heartbeat, and leaves the outcome to the executor', async () => {
    const job = await cancelled()
    expect(await heartbeat(session, job)).toMatchObject({ status: 'ok', cancel_reason: 'not needed' })
    expect(await heartbeat(session, job, 10)).toMatchObject({ status: 'ok', cancel_reason: 'not needed' })
    expect(await complete(session, job)).toMatchObject({ state: 'succeeded' })
  })
  test('ends it as cancelled when it is failed, released, given back or lost', async () => {
    expect(await fail(session, await cancelled())).toMatchObject({ state: 'cancelled' })
    expect(await release(session, await cancelled())).toMatchObject({ state: 'cancelled' })
    const returned = await cancelled()
    await byLease(session, 'give_back', [returned])
    expect(await stateOf(session, returned.id)).toBe('cancelled')
    const lost = await cancelled()
    await byLease(session, 'doubt', [lost])
    expect(await readJob(session, lost.id)).toMatchObject({ state: 'cancelled', cancel_reason: 'not needed' })
  })
  test('leaves a lost orphan to a person, who cancels it', async () => {
    const job = await cancelled({ on_lost: 'orphan' })
    await byLease(session, 'doubt', [job])
    expect(await stateOf(session, job.id)).toBe('orphaned')
    expect(await value(session, 'select pullgate.cancel($1)', [job.id])).toBe('cancelled')
  })
})

test('the log keeps the last 100 attempts, a long error the first 10,000 characters', async () => {
  const name = topic()
  const subscription = await subscribe(session, name)
  const id = await publish(session, name, { max_attempts: 100 })
  for (let attempt = 1; attempt <= 103; attempt++)
    await release(session, await claimOne(session, name, subscription))
  const last = await claimOne(session, name, subscription)
  await rows(session, `select pullgate.settle_fail($1, $2, repeat('e', 20000), true, 60)`, [id, last.lease])
  const job = await readJob(session, id)
  expect((job['last_error'] as string).length).toBe(10_000)
  const log = job['log'] as { outcome: string; error?: string }[]
  expect([log.length, log[0]?.outcome, log[99]?.outcome, log[99]?.error?.length]).toEqual([
    100,
    'released',
    'failed',
    1000,
  ])
})
