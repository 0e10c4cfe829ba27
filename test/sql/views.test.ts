import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claimOne,
  complete,
  fail,
  heartbeat,
  publish,
  row,
  rows,
  runningJob,
  subscribe,
  value,
} from './jobs.ts'

const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})
beforeEach(async () => {
  await session.query(
    'truncate pullgate.job, pullgate.history, pullgate.lane, pullgate.topic, pullgate.snapshot',
  )
})

/** One job in each state that is live, and two finished ones. */
async function oneOfEach(topic: string): Promise<void> {
  const subscription = await subscribe(session, topic)
  const take = () => claimOne(session, topic, subscription)
  await publish(session, topic)
  await complete(session, await take())
  await publish(session, topic)
  await fail(session, await take(), { retry: false })
  await publish(session, topic, { on_lost: 'orphan' })
  await byLease(session, 'doubt', [await take()])
  await publish(session, topic)
  await take()
  await runningJob(session, topic, { ack: 'auto', dedupe_key: 'k' }).then((job) =>
    byLease(session, 'confirm', [job]),
  )
  await publish(session, topic, { delay: '1 hour' })
  await publish(session, topic)
  await publish(session, topic, { priority: 3 })
}

describe('pullgate.jobs', () => {
  test('shows live and finished jobs once, by topic, without spec and lease', async () => {
    await oneOfEach('shown')
    const found = await rows(
      session,
      'select topic, state, finished_at is null as live from pullgate.jobs order by id',
    )
    const states = ['succeeded', 'failed', 'orphaned', 'running', 'delivered', 'scheduled', 'ready', 'ready']
    expect(found).toEqual(
      states.map((state) => ({ topic: 'shown', state, live: !['succeeded', 'failed'].includes(state) })),
    )
    const columns = await rows<{ column_name: string }>(
      session,
      `select column_name from information_schema.columns where table_schema = 'pullgate' and table_name = 'jobs'`,
    )
    const names = columns.map((column) => column.column_name)
    expect(names).not.toContain('job_spec')
    expect(names).not.toContain('lease')
    expect(names).not.toContain('log')
  })
  test('shows a job once though its lane was registered twice', async () => {
    const other = await database.session()
    await other.query('begin')
    await publish(other, 'twice')
    await publish(session, 'twice')
    await other.query('commit')
    expect(await value(session, 'select count(*) from pullgate.jobs')).toBe('2')
    expect(await row(session, 'select topic, ready from pullgate.topics')).toEqual({
      topic: 'twice',
      ready: '2',
    })
  })
})

describe('pullgate.topics', () => {
  test('counts by state, with settings, and names topics without jobs', async () => {
    await oneOfEach('counted')
    await subscribe(session, 'empty')
    await rows(
      session,
      `select pullgate.configure_topic('set', paused => true, max_attempts => 2, on_lost => 'fail')`,
    )
    const none = {
      scheduled: '0',
      ready: '0',
      offered: '0',
      running: '0',
      delivered: '0',
      orphaned: '0',
      oldest_ready_at: null,
    }
    const defaults = { paused: false, max_attempts: 5, on_lost: 'requeue' }
    const oldest = await value(session, `select min(due_at) from pullgate.job where state = 'ready'`)
    expect(await rows(session, 'select * from pullgate.topics order by topic')).toEqual([
      {
        topic: 'counted',
        ...defaults,
        scheduled: '1',
        ready: '2',
        offered: '0',
        running: '1',
        delivered: '1',
        orphaned: '1',
        oldest_ready_at: oldest,
      },
      { topic: 'empty', ...defaults, ...none },
      { topic: 'set', paused: true, max_attempts: 2, on_lost: 'fail', ...none },
    ])
  })
  test('the oldest ready job is that of any lane, also one that came back', async () => {
    const job = await runningJob(session, 'oldest')
    await byLease(session, 'give_back', [job])
    await publish(session, 'oldest', { priority: 1 })
    const expected = await value(session, `select due_at from pullgate.job where id = $1`, [job.id])
    expect(await value(session, 'select oldest_ready_at from pullgate.topics')).toEqual(expected)
  })
})

describe('the snapshot of counts', () => {
  const snapshot = (seconds: number) =>
    row<{ counts: object[]; age_seconds: number; taken_at: Date }>(
      session,
      'select * from pullgate.snapshot_jobs($1)',
      [seconds],
    )
  test('is taken anew when it is older than asked, and kept otherwise', async () => {
    expect((await snapshot(60)).counts).toEqual([])
    await publish(session, 'snap')
    expect((await snapshot(60)).counts).toEqual([])
    expect((await snapshot(0)).counts).toMatchObject([{ topic: 'snap', state: 'ready', jobs: 1 }])
    const kept = await snapshot(60)
    expect(kept.counts.length).toBe(1)
    expect(kept.age_seconds).toBeLessThan(60)
  })
  test('is taken by one session at a time; the others read the last', async () => {
    const first = await snapshot(0)
    const other = await database.session()
    await other.query(`begin; select pg_advisory_xact_lock(hashtext('pullgate.snapshot'))`)
    await publish(session, 'snap')
    expect((await snapshot(0)).taken_at).toEqual(first.taken_at)
    await other.query('commit')
    expect((await snapshot(0)).counts.length).toBe(1)
  })
})

describe('read_job', () => {
  const read = (id: string) => row(session, 'select * from pullgate.read_job($1)', [id])

  test('says why a job is pending', async () => {
    const pending = async (id: string) => (await read(id))['pending']
    const ready = await publish(session, 'why')
    expect(await pending(ready)).toBe('waiting-for-executor')
    expect(await pending(await publish(session, 'why', { delay: '1 hour' }))).toBe('not-due')
    await rows(session, `select pullgate.configure_topic('why', paused => true)`)
    expect(await pending(ready)).toBe('topic-paused')
    await rows(session, `select pullgate.configure_topic('why', paused => false)`)
    const held = await claimOne(session, 'why', await subscribe(session, 'why'))
    expect(await pending(held.id)).toBeNull()
    await fail(session, held, { after: 60 })
    expect(await pending(held.id)).toBe('retry-later')
    const orphan = await runningJob(session, 'orphan', { on_lost: 'orphan' })
    await byLease(session, 'doubt', [orphan])
    expect(await pending(orphan.id)).toBe('waiting-for-decision')
  })
  test('shows progress, result and the log, and never a lease', async () => {
    const job = await runningJob(session, 'detail', { spec: '"the spec"' })
    await heartbeat(session, job, 60, '{"done": 0.5}')
    await fail(session, job, { after: 0 })
    expect(await read(job.id)).toMatchObject({
      topic: 'detail',
      state: 'ready',
      progress: '{"done": 0.5}',
      log: [{ attempt: 1, outcome: 'failed', error: 'broke', state: 'ready' }],
    })
    const again = await claimOne(session, 'detail', await subscribe(session, 'detail'))
    expect(JSON.stringify(await read(job.id))).not.toMatch(new RegExp(`${job.lease}|${again.lease}|the spec`))
    await complete(session, again, '[1]')
    expect(await read(job.id)).toMatchObject({
      state: 'succeeded',
      result: '[1]',
      finished_at: expect.any(Date) as Date,
    })
    expect(JSON.stringify(await read(job.id))).not.toMatch(new RegExp(`${job.lease}|${again.lease}|the spec`))
  })
  test('has no row for an unknown job', async () => {
    expect(await rows(session, 'select * from pullgate.read_job(999999)')).toEqual([])
  })
})
