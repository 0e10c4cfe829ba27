import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claimOne,
  complete,
  endLease,
  fail,
  heartbeat,
  readJob,
  release,
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

let count = 0
const topic = () => `settle_${++count}`
const again = async (name: string) => claimOne(session, name, await subscribe(session, name))

describe('a settle repeated with the same lease gets the same answer', () => {
  test('complete, as long as the job is in history', async () => {
    const job = await runningJob(session, topic())
    const answer = { status: 'ok', state: 'succeeded' }
    expect(await complete(session, job, '{"ok": 1}')).toEqual(answer)
    expect(await complete(session, job, '{"other": 1}')).toEqual(answer)
    expect(await readJob(session, job.id)).toMatchObject({
      state: 'succeeded',
      result: '{"ok": 1}',
      live: false,
    })
  })
  test('fail, also after the job was claimed again, and after it ended', async () => {
    const name = topic()
    const first = await runningJob(session, name)
    const answer = await fail(session, first, { after: 60 })
    expect(answer).toMatchObject({ status: 'ok', state: 'scheduled' })
    expect(await fail(session, first, { after: 10 })).toEqual(answer)
    await rows(session, 'update pullgate.job set due_at = clock_timestamp() where id = $1', [first.id])
    await runDue(session)
    const second = await again(name)
    expect(await fail(session, first)).toEqual(answer)
    expect(await fail(session, second, { retry: false })).toMatchObject({ status: 'ok', state: 'failed' })
    expect(await fail(session, second)).toEqual({ status: 'ok', state: 'failed', due_at: null })
    expect(await fail(session, first)).toEqual(answer)
  })
  test('release, until the job is claimed again', async () => {
    const name = topic()
    const job = await runningJob(session, name)
    expect(await release(session, job)).toEqual({ status: 'ok', state: 'ready', due_at: null })
    expect(await release(session, job)).toEqual({ status: 'ok', state: 'ready', due_at: null })
    const second = await again(name)
    expect(second.attempt).toBe(1)
    expect(await release(session, job)).toMatchObject({ status: 'lost' })
    const delayed = await release(session, second, 60)
    expect(delayed).toMatchObject({ status: 'ok', state: 'scheduled' })
    expect(await release(session, second, 5)).toEqual(delayed)
  })
  test('complete and fail without a lease, of a job acknowledged automatically', async () => {
    for (const options of [{}, { dedupe_key: 'k' }]) {
      const job = await runningJob(session, topic(), { ack: 'auto', ...options })
      await byLease(session, 'confirm', [job])
      const told = { id: job.id, lease: null }
      expect(await complete(session, told)).toEqual({ status: 'ok', state: 'succeeded' })
      expect(await complete(session, told)).toEqual({ status: 'ok', state: 'succeeded' })
      expect(await fail(session, told)).toMatchObject({ status: 'lost' })
      const other = await runningJob(session, topic(), { ack: 'auto', ...options })
      await byLease(session, 'confirm', [other])
      for (let time = 0; time < 2; time++) {
        expect(await fail(session, { id: other.id, lease: null })).toMatchObject({
          status: 'ok',
          state: 'failed',
        })
      }
      expect(await complete(session, { id: other.id, lease: null })).toMatchObject({ status: 'lost' })
    }
  })
})

describe('a stale lease changes nothing', () => {
  const verbs = { complete, fail, release, heartbeat }
  async function expectLost(job: { id: string; lease: string }, names = Object.keys(verbs)): Promise<void> {
    const before = await readJob(session, job.id)
    for (const name of names) {
      expect(await verbs[name as keyof typeof verbs](session, job)).toMatchObject({ status: 'lost' })
    }
    expect(await byLease(session, 'give_back', [job])).toBe(0)
    expect(await byLease(session, 'confirm', [job])).toBe(0)
    expect(await byLease(session, 'doubt', [job])).toBe(0)
    expect(await readJob(session, job.id)).toEqual(before)
  }

  test('once the job was claimed again', async () => {
    const name = topic()
    const job = await runningJob(session, name)
    await endLease(session, job.id)
    await runDue(session)
    await again(name)
    await expectLost(job)
  })
  test.each(['explicit', 'auto'] as const)('once it was settled, by another verb (%s)', async (ack) => {
    const completed = await runningJob(session, topic(), { ack })
    await complete(session, completed)
    await expectLost(completed, ['fail', 'release', 'heartbeat'])
    const failed = await runningJob(session, topic(), { ack })
    await fail(session, failed, { after: 60 })
    await expectLost(failed, ['complete', 'release', 'heartbeat'])
    const released = await runningJob(session, topic(), { ack })
    await release(session, released)
    await expectLost(released, ['complete', 'fail', 'heartbeat'])
  })
  test('once the job was given back, was cancelled or failed with its lease', async () => {
    const returned = await runningJob(session, topic())
    await byLease(session, 'give_back', [returned])
    await expectLost(returned)
    const failed = await runningJob(session, topic(), { on_lost: 'fail' })
    await endLease(session, failed.id)
    await runDue(session)
    await expectLost(failed)
    const orphan = await runningJob(session, topic(), { on_lost: 'orphan' })
    await endLease(session, orphan.id)
    await runDue(session)
    await rows(session, 'select pullgate.retry($1)', [orphan.id])
    await expectLost(orphan)
  })
  test('nor does a lease that never was, or none where one is needed', async () => {
    const job = await runningJob(session, topic())
    await expectLost({ ...job, lease: '00000000-0000-4000-8000-000000000000' })
    const before = await readJob(session, job.id)
    for (const verb of [complete, fail, release, heartbeat]) {
      expect(await verb(session, { id: job.id, lease: null })).toMatchObject({ status: 'lost' })
    }
    const delivered = await runningJob(session, topic(), { ack: 'auto', dedupe_key: 'k' })
    await byLease(session, 'confirm', [delivered])
    expect(await release(session, { id: delivered.id, lease: null })).toMatchObject({ status: 'lost' })
    expect(await heartbeat(session, { id: delivered.id, lease: null })).toMatchObject({ status: 'lost' })
    expect(await stateOf(session, delivered.id)).toBe('delivered')
    expect(await readJob(session, job.id)).toEqual(before)
  })
  test('an unknown job is said to be unknown', async () => {
    const lease = '00000000-0000-4000-8000-000000000000'
    for (const verb of [complete, fail, release, heartbeat]) {
      expect(await verb(session, { id: '999999', lease })).toMatchObject({ status: 'unknown' })
    }
  })
})

describe('a lease that ended still counts, until the job is claimed again', () => {
  const policies = [
    ['requeue', 'ready'],
    ['orphan', 'orphaned'],
  ] as const
  describe.each(policies)('under on_lost %s', (on_lost, gone) => {
    const lost = async () => {
      const job = await runningJob(session, topic(), { on_lost })
      await endLease(session, job.id)
      await runDue(session)
      expect(await stateOf(session, job.id)).toBe(gone)
      return job
    }
    test('a heartbeat revives the job under the same lease', async () => {
      const job = await lost()
      expect(await heartbeat(session, job, 30)).toMatchObject({ status: 'ok' })
      expect(await readJob(session, job.id)).toMatchObject({
        state: 'running',
        lease: job.lease,
        attempts: 1,
      })
      expect(await complete(session, job)).toMatchObject({ status: 'ok' })
    })
    test('complete, fail and release settle it', async () => {
      expect(await complete(session, await lost())).toMatchObject({ status: 'ok', state: 'succeeded' })
      expect(await fail(session, await lost())).toMatchObject({ status: 'ok', state: 'scheduled' })
      expect(await fail(session, await lost(), { after: 0 })).toMatchObject({ status: 'ok', state: 'ready' })
      const released = await lost()
      expect(await release(session, released)).toMatchObject({ status: 'ok', state: 'ready' })
      expect(await readJob(session, released.id)).toMatchObject({ state: 'ready', attempts: 0 })
    })
  })
  test('also before anybody has looked', async () => {
    const job = await runningJob(session, topic())
    await endLease(session, job.id)
    expect(await heartbeat(session, job)).toMatchObject({ status: 'ok' })
    expect(await runDue(session)).toMatchObject({ leases_lost: {} })
  })
})

describe('an executor without lease, acknowledged automatically', () => {
  test('may report before the gateway has confirmed the delivery', async () => {
    const job = await runningJob(session, topic(), { ack: 'auto' })
    expect(await complete(session, { id: job.id, lease: null })).toMatchObject({
      status: 'ok',
      state: 'succeeded',
    })
    expect(await byLease(session, 'confirm', [job])).toBe(0)
    const failed = await runningJob(session, topic(), { ack: 'auto' })
    expect(await fail(session, { id: failed.id, lease: null })).toMatchObject({
      status: 'ok',
      state: 'failed',
    })
    expect(await byLease(session, 'confirm', [failed])).toBe(0)
    expect(await value(session, 'select state from pullgate.jobs where id = $1', [failed.id])).toBe('failed')
  })
  test('has no say about a job whose executor holds a lease', async () => {
    const job = await runningJob(session, topic())
    expect(await complete(session, { id: job.id, lease: null })).toMatchObject({ status: 'lost' })
  })
})
