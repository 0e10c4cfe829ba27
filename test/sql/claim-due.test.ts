import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { until } from '../support/http.ts'
import { claimDue, endLease, publish, rows, runningJob, stateOf, subscribe, value } from './jobs.ts'

const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})
beforeEach(async () => {
  await session.query('truncate pullgate.job, pullgate.history, pullgate.lane')
})

/** A job that has just fallen due. */
async function dueJob(topic: string): Promise<string> {
  const id = await publish(session, topic, { delay: '1 hour' })
  await rows(session, `update pullgate.job set due_at = clock_timestamp() where id = $1`, [id])
  return id
}
const topicId = (topic: string) => value(session, 'select pullgate.topic_id($1)', [topic])
const commits = () => value(session, `select current_setting('synchronous_commit')`)

describe('claim_due', () => {
  test('claims what it makes ready, and says what fell due', async () => {
    const id = await dueJob('both')
    const elsewhere = await dueJob('elsewhere')
    await endLease(session, (await runningJob(session, 'elsewhere', { on_lost: 'orphan' })).id)
    await publish(session, 'both', { expires_at: '2001-01-01' })
    const { jobs, notes, due } = await claimDue(session, 'both', await subscribe(session, 'both'), {
      count: 2,
    })
    expect(jobs).toMatchObject([{ id, slot: 1, attempt: 1, job_spec: '{}' }])
    expect(notes).toEqual([])
    expect({ ...due, topics: [...due.topics].sort() }).toEqual({
      // As texts: JSON.parse would lose digits of a number.
      topics: [await topicId('both'), await topicId('elsewhere')].sort(),
      promoted: 2,
      leases_checked: 1,
      leases_lost: { orphaned: 1 },
      offers_ended: {},
      expired: 1,
      more: false,
      waited_ms: 0,
      stuck: 0,
    })
    expect(await stateOf(session, elsewhere)).toBe('ready')
  })
  test('with nothing due claims what is ready', async () => {
    const subscription = await subscribe(session, 'calm')
    const id = await publish(session, 'calm')
    expect(await claimDue(session, 'calm', subscription)).toMatchObject({
      jobs: [{ id }],
      due: { topics: [], promoted: 0, leases_checked: 0, leases_lost: {}, expired: 0, more: false },
    })
    expect(await claimDue(session, 'calm', subscription)).toMatchObject({ jobs: [], due: { promoted: 0 } })
  })
  test('waits for an instant within 10 ms, says for how long, and hands nothing out before it', async () => {
    const subscription = await subscribe(session, 'soon')
    // Where the machine is slow the instant has passed when the statement comes.
    await until(async () => {
      const id = await publish(session, 'soon', { delay: '8 milliseconds' })
      const { jobs, due } = await claimDue(session, 'soon', subscription)
      expect(jobs).toMatchObject([{ id }])
      expect(jobs[0]?.ready_seconds).toBeGreaterThanOrEqual(0)
      expect(due.waited_ms).toBeGreaterThan(0)
    })
  })
  test('hands out again a job whose lease has just ended', async () => {
    const held = await runningJob(session, 'lost')
    await endLease(session, held.id)
    const { jobs, due } = await claimDue(session, 'lost', await subscribe(session, 'lost'))
    expect(jobs).toMatchObject([{ id: held.id, attempt: 2, redelivered: true }])
    expect(due).toMatchObject({ leases_checked: 1, leases_lost: { ready: 1 } })
  })
  test('does as much as the limit says, and tells that there is more', async () => {
    for (let n = 0; n < 3; n += 1) await dueJob('more')
    const subscription = await subscribe(session, 'more')
    const most = { limit: 2, count: 5 }
    expect(await claimDue(session, 'more', subscription, most)).toMatchObject({
      jobs: [{}, {}],
      due: { promoted: 2, more: true },
    })
    expect(await claimDue(session, 'more', subscription, most)).toMatchObject({
      jobs: [{}],
      due: { promoted: 1, more: false },
    })
  })
  test('of a paused topic makes jobs ready and claims none', async () => {
    const id = await dueJob('paused')
    await rows(session, `select pullgate.configure_topic('paused', paused => true)`)
    const { jobs, notes, due } = await claimDue(session, 'paused', await subscribe(session, 'paused'))
    expect([jobs, notes, due.promoted]).toEqual([[], [], 1])
    expect(await stateOf(session, id)).toBe('ready')
  })
  test('notes a subscription that has ended, and hands out nothing for it', async () => {
    const id = await dueJob('ended')
    const subscription = await subscribe(session, 'ended')
    await rows(session, 'select pullgate.unsubscribe($1, false)', [subscription])
    const { jobs, notes, due } = await claimDue(session, 'ended', subscription)
    expect([jobs, notes, due.promoted]).toEqual([[], ['ended'], 1])
    expect(await stateOf(session, id)).toBe('ready')
  })
  test('skips what another session has locked, without waiting; a ready job among it is noted', async () => {
    const other = await database.session()
    const subscription = await subscribe(session, 'locked')
    const scheduled = await dueJob('locked')
    await publish(session, 'locked')
    await other.query('begin; select from pullgate.job for update')
    await session.query(`set lock_timeout = '1s'`)
    const { jobs, notes, due } = await claimDue(session, 'locked', subscription)
    expect([jobs, notes, due.promoted]).toEqual([[], ['left'], 0])
    await other.query('rollback')
    expect(await claimDue(session, 'locked', subscription, { count: 2 })).toMatchObject({
      jobs: [{}, { id: scheduled }],
      due: { promoted: 1 },
    })
  })
  test('returns the columns that claim does', async () => {
    const sql = `select count(distinct pg_get_function_result(p.oid))::integer as results, count(*)::integer as functions
      from pg_proc p where p.pronamespace = 'pullgate'::regnamespace and p.proname in ('claim', 'claim_due')`
    expect(await rows(session, sql)).toEqual([{ results: 1, functions: 2 }])
  })
})

describe('what a crash may undo', () => {
  test('run_due leaves its commit to be flushed later', async () => {
    await session.query('begin')
    await rows(session, 'select * from pullgate.run_due(10, null)')
    expect(await commits()).toBe('off')
    await session.query('rollback')
  })
  test.each(['on', 'local', 'remote_apply', 'off'])(
    'claim_due, which hands out jobs, commits as the session would: %s',
    async (setting) => {
      await dueJob('durable')
      const subscription = await subscribe(session, 'durable')
      await session.query(`begin; set local synchronous_commit = ${setting}`)
      expect((await claimDue(session, 'durable', subscription)).jobs).toHaveLength(1)
      expect(await commits()).toBe(setting)
      await session.query('commit')
      expect(await commits()).toBe('on')
    },
  )
})

describe('look names the topic that the next due instant makes ready', () => {
  const look = async () => {
    const sql = `select due_topic, due_in_ms is not null as due from pullgate.look('{}', '{}', '{}', null, 0, false)`
    const [seen] = await rows<{ due_topic: string | null; due: boolean }>(session, sql)
    return seen
  }
  test('of several the first', async () => {
    expect(await look()).toEqual({ due_topic: null, due: false })
    await publish(session, 'second', { delay: '1.5 seconds' })
    await publish(session, 'first', { delay: '1 second' })
    expect(await look()).toEqual({ due_topic: await topicId('first'), due: true })
    await endLease(session, (await runningJob(session, 'earlier')).id)
    expect(await look()).toEqual({ due_topic: await topicId('earlier'), due: true })
    const id = await publish(session, 'earliest', { expires_at: '2199-01-01' })
    await rows(session, `update pullgate.job set expires_at = now() - interval '1 hour' where id = $1`, [id])
    expect(await look()).toEqual({ due_topic: null, due: true })
  })
  test('not for a deadline', async () => {
    await publish(session, 'deadline', { expires_at: '2001-01-01' })
    expect(await look()).toEqual({ due_topic: null, due: true })
  })
  test('for a lease that ends in a requeue, not for one that was renewed or ends otherwise', async () => {
    const held = await runningJob(session, 'lease')
    await endLease(session, held.id)
    expect(await look()).toEqual({ due_topic: await topicId('lease'), due: true })
    await rows(session, `update pullgate.job set lease_ends_at = clock_timestamp() + interval '1 minute'`)
    expect(await look()).toEqual({ due_topic: null, due: true })
    await endLease(session, held.id)
    await rows(session, `update pullgate.job set on_lost = 'orphan'`)
    expect(await look()).toEqual({ due_topic: null, due: true })
  })
})
