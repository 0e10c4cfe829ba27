import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claim,
  endLease,
  fail,
  heartbeat,
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
beforeEach(async () => {
  await session.query('truncate pullgate.job, pullgate.history, pullgate.lane')
})

const fallDue = (id: string) =>
  rows(session, `update pullgate.job set due_at = clock_timestamp() - interval '1 ms' where id = $1`, [id])
const topicId = (topic: string) => value(session, 'select pullgate.topic_id($1)', [topic])

describe('run_due', () => {
  test('with nothing due changes nothing', async () => {
    await publish(session, 'calm', { delay: '1 hour', expires_at: '2199-01-01' })
    await publish(session, 'calm', { expires_at: '2199-01-01' })
    await runningJob(session, 'calm')
    const before = await rows(session, 'select *, ctid from pullgate.job order by id')
    expect(await runDue(session)).toMatchObject({
      topics: [],
      promoted: 0,
      leases_lost: {},
      expired: 0,
      more: false,
    })
    expect(await rows(session, 'select *, ctid from pullgate.job order by id')).toEqual(before)
  })
  test('finds a deadline that had passed when the job was published, released or given back', async () => {
    const past = await publish(session, 'deadline', { expires_at: '2001-01-01' })
    const released = await runningJob(session, 'deadline')
    const back = await runningJob(session, 'deadline')
    await rows(
      session,
      `update pullgate.job set expires_at = now() - interval '1 hour' where id = any ($1)`,
      [[released.id, back.id]],
    )
    // Up to here nothing falls due any more.
    const dueAfter = await value(session, `select (clock_timestamp() - interval '5 seconds')::text`)
    await release(session, released)
    await byLease(session, 'give_back', [back])
    expect(await row(session, 'select expired from pullgate.run_due(100, $1)', [dueAfter])).toEqual({
      expired: 3,
    })
    for (const id of [past, released.id, back.id]) expect(await stateOf(session, id)).toBe('expired')
  })
  test('waits for what is due within 10 ms, and for nothing later', async () => {
    const [soon, later] = [
      await publish(session, 'soon', { delay: '8 milliseconds' }),
      await publish(session, 'soon', { delay: '1 minute' }),
    ]
    expect(await runDue(session)).toMatchObject({ promoted: 1 })
    expect([await stateOf(session, soon), await stateOf(session, later)]).toEqual(['ready', 'scheduled'])
  })
  test('makes due jobs ready in the order of their instants, at most the limit', async () => {
    const late = await publish(session, 'due', { delay: '2 hours', spec: '"late"' })
    const early = await publish(session, 'due', { delay: '1 hour', spec: '"early"' })
    await fallDue(early)
    await fallDue(late)
    expect(await runDue(session, 1)).toMatchObject({
      topics: [await topicId('due')],
      promoted: 1,
      more: true,
    })
    expect([await stateOf(session, early), await stateOf(session, late)]).toEqual(['ready', 'scheduled'])
    expect(await runDue(session, 2)).toMatchObject({ promoted: 1, more: false })
    const jobs = await claim(session, 'due', await subscribe(session, 'due'), 5)
    expect(jobs.map((job) => job.job_spec)).toEqual(['"early"', '"late"'])
  })
  test('keeps the instant at which a job fell due, as the start of its wait', async () => {
    const id = await publish(session, 'since', { delay: '1 hour' })
    await rows(
      session,
      `update pullgate.job set due_at = clock_timestamp() - interval '30 s' where id = $1`,
      [id],
    )
    await runDue(session)
    const [job] = await claim(session, 'since', await subscribe(session, 'since'))
    expect(job?.ready_seconds).toBeGreaterThanOrEqual(30)
    expect(job?.ready_seconds).toBeLessThan(60)
  })
  test('skips what another session has locked, without waiting, and takes it later', async () => {
    const other = await database.session()
    const scheduled = await publish(session, 'locked', { delay: '1 hour' })
    const expiring = await publish(session, 'locked', { expires_at: '2020-01-01' })
    const held = await runningJob(session, 'locked')
    await fallDue(scheduled)
    await endLease(session, held.id)
    await other.query('begin; select from pullgate.job for update')
    await session.query(`set lock_timeout = '1s'`)
    const none = { topics: [], promoted: 0, leases_lost: {}, expired: 0 }
    expect(await runDue(session)).toMatchObject(none)
    await other.query('rollback')
    expect(await runDue(session)).toMatchObject({ promoted: 1, leases_lost: { ready: 1 }, expired: 1 })
    expect(await stateOf(session, expiring)).toBe('expired')
    expect(await runDue(session)).toMatchObject(none)
  })
  test('by two sessions at once does everything once', async () => {
    const other = await database.session()
    for (let index = 0; index < 100; index++) {
      await fallDue(await publish(session, 'both', { delay: '1 hour' }))
      await publish(session, 'both', { expires_at: '2020-01-01' })
    }
    const results = await Promise.all([runDue(session), runDue(other)])
    const sum = (key: 'promoted' | 'expired') => results.reduce((total, result) => total + result[key], 0)
    expect([sum('promoted'), sum('expired')]).toEqual([100, 100])
  })
  test('expires what was not started by its deadline, scheduled or ready, and nothing that runs', async () => {
    const options = { expires_at: '2199-01-01' }
    const scheduled = await publish(session, 'deadline', { ...options, delay: '1 hour' })
    const running = await runningJob(session, 'deadline', options)
    const ready = await publish(session, 'deadline', options)
    await rows(session, `update pullgate.job set expires_at = clock_timestamp(), due_at = clock_timestamp()`)
    expect(await runDue(session)).toMatchObject({ topics: [], promoted: 0, expired: 2, more: false })
    expect(await stateOf(session, scheduled)).toBe('expired')
    expect(await readJob(session, ready)).toMatchObject({ state: 'expired', live: false, attempts: 0 })
    expect(await stateOf(session, running.id)).toBe('running')
  })
  test('does not expire what was started in time and comes back later: its executor may still be at work', async () => {
    const started = async () => {
      const job = await runningJob(session, 'started', { expires_at: '2199-01-01' })
      await rows(session, `update pullgate.job set expires_at = clock_timestamp() where id = $1`, [job.id])
      return job
    }
    const lost = await started()
    await endLease(session, lost.id)
    expect(await runDue(session)).toMatchObject({ leases_lost: { ready: 1 }, expired: 0 })
    expect(await heartbeat(session, lost)).toMatchObject({ status: 'ok' })
    await fail(session, await started(), { after: 60 })
    expect(await runDue(session)).toMatchObject({ expired: 0 })
    const released = await started()
    await release(session, released)
    const returned = await started()
    await byLease(session, 'give_back', [returned])
    expect(await runDue(session)).toMatchObject({ expired: 2 })
  })
  test('ends leases at most the limit at once, and says what became of them', async () => {
    for (const on_lost of ['requeue', 'orphan', 'fail', 'fail']) {
      await endLease(session, (await runningJob(session, on_lost, { on_lost })).id)
    }
    expect(await runDue(session, 4)).toMatchObject({
      topics: [await topicId('requeue')],
      leases_lost: { ready: 1, orphaned: 1, failed: 2 },
      more: true,
    })
  })
  test('lets a delivered job go, and its dedupe key, when its outcome was not told for a day', async () => {
    const job = await runningJob(session, 'untold', { ack: 'auto', dedupe_key: 'k' })
    await byLease(session, 'confirm', [job])
    const sql = `select lease_check_at - clock_timestamp() between interval '23:59' and interval '24:00' as day
      from pullgate.job where id = $1`
    expect(await row(session, sql, [job.id])).toEqual({ day: true })
    expect(await publish(session, 'untold', { dedupe_key: 'k' })).toBe(job.id)
    await rows(session, 'update pullgate.job set lease_check_at = clock_timestamp() where id = $1', [job.id])
    expect(await runDue(session)).toMatchObject({ leases_lost: {}, topics: [] })
    expect(await readJob(session, job.id)).toMatchObject({ state: 'delivered', live: false })
    expect(await publish(session, 'untold', { dedupe_key: 'k' })).not.toBe(job.id)
  })
})

describe('backstop', () => {
  const backstop = async (...topics: string[]) => {
    const ids = await rows<{ id: string }>(
      session,
      'select pullgate.topic_id(t) as id from unnest($1::text[]) t',
      [topics],
    )
    return row<{ ready_topics: string[]; ended: string[]; due_in_ms: number | null }>(
      session,
      `select * from pullgate.look($1, '{}', '{}', null, 100, false)`,
      [ids.map((found) => found.id)],
    )
  }
  test('names the topics asked for that have something to claim', async () => {
    await publish(session, 'plenty')
    await publish(session, 'unasked')
    await publish(session, 'later', { delay: '1 hour' })
    await publish(session, 'gone', { expires_at: '2020-01-01' })
    await publish(session, 'paused')
    await rows(session, `select pullgate.configure_topic('paused', paused => true)`)
    const returned = await runningJob(session, 'returned', { priority: 3 })
    await byLease(session, 'give_back', [returned])
    await rows(session, `update pullgate.job set due_at = due_at - interval '1 second' where state = 'ready'`)
    await publish(session, 'plenty')
    const { ready_topics } = await backstop('plenty', 'later', 'gone', 'paused', 'returned', 'nowhere')
    expect(ready_topics.sort()).toEqual([await topicId('plenty'), await topicId('returned')].sort())
  })
  test('leaves a job alone whose notification may still be under way', async () => {
    await publish(session, 'fresh')
    // As if no time had passed, however slow the machine is.
    await rows(session, `update pullgate.job set due_at = due_at + interval '1 minute' where state = 'ready'`)
    expect((await backstop('fresh')).ready_topics).toEqual([])
  })
  test('tells of the next due instant of any kind within 2 s, of a past one as 0', async () => {
    expect((await backstop()).due_in_ms).toBeNull()
    await publish(session, 'soon', { delay: '3 s' })
    await publish(session, 'soon', { expires_at: '2199-01-01' })
    expect((await backstop()).due_in_ms).toBeNull()
    const scheduled = await publish(session, 'soon', { delay: '1900 ms' })
    expect((await backstop()).due_in_ms).toBeGreaterThan(0)
    expect((await backstop()).due_in_ms).toBeLessThanOrEqual(1900)
    await fallDue(scheduled)
    expect((await backstop()).due_in_ms).toBe(0)
    await session.query('truncate pullgate.job')
    await publish(session, 'soon', { expires_at: '2020-01-01' })
    expect((await backstop()).due_in_ms).toBe(0)
    await session.query('truncate pullgate.job')
    const held = await runningJob(session, 'soon')
    expect((await backstop()).due_in_ms).toBeNull()
    await endLease(session, held.id)
    expect((await backstop()).due_in_ms).toBe(0)
    await heartbeat(session, held)
    await runDue(session)
    expect((await backstop()).due_in_ms).toBeNull()
  })
  test('names the subscriptions that ended in the last 10 s', async () => {
    const ended = await subscribe(session, 'ended')
    const earlier = await subscribe(session, 'ended')
    await subscribe(session, 'ended')
    await rows(session, 'select pullgate.unsubscribe(id, false) from unnest($1::uuid[]) as id', [
      [ended, earlier],
    ])
    const sql = `update pullgate.subscription set ended_at = clock_timestamp() - interval '11 s' where id = $1`
    await rows(session, sql, [earlier])
    expect((await backstop()).ended).toEqual([ended])
  })
})
