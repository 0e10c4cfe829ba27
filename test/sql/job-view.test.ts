import type pg from 'pg'
import { beforeAll, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claimOne,
  complete,
  endLease,
  fail,
  heartbeat,
  publish,
  readJob,
  refusal,
  release,
  row,
  rows,
  runDue,
  runningJob,
  subscribe,
} from './jobs.ts'

// What pullgate.jobs and read_job say of a job, and what retry says of one that it does not apply to.
const database = useDatabase()
let session: pg.Client
beforeAll(async () => {
  session = await database.session()
})
const shownBy = (from: string, id: string) =>
  row(session, `select state, pending, result, progress, lease_ends_at is not null as leased from ${from}`, [
    id,
  ])
/** The view and the function must agree. */
async function shown(id: string): Promise<Record<string, unknown>> {
  const found = await shownBy('pullgate.jobs where id = $1', id)
  expect(await shownBy('pullgate.read_job($1)', id)).toEqual(found)
  return found
}

test('the view says why a job is not running, its progress and its result', async () => {
  const none = { result: null, progress: null, leased: false }
  const waiting = { ...none, state: 'ready', pending: 'waiting-for-executor' }
  const id = await publish(session, 'shown')
  expect(await shown(id)).toEqual(waiting)
  await rows(session, `select pullgate.configure_topic('shown', paused => true)`)
  expect(await shown(id)).toEqual({ ...waiting, pending: 'topic-paused' })
  await rows(session, `select pullgate.configure_topic('shown', paused => false)`)
  const later = await publish(session, 'shown', { delay: '1 hour' })
  expect(await shown(later)).toEqual({ ...none, state: 'scheduled', pending: 'not-due' })
  const job = await claimOne(session, 'shown', await subscribe(session, 'shown'))
  await heartbeat(session, job, 60, '{"done":  1}')
  const running = { ...none, state: 'running', pending: null, progress: '{"done":  1}', leased: true }
  expect(await shown(id)).toEqual(running)
  await fail(session, job, { after: 60 })
  expect(await shown(id)).toEqual({ ...running, state: 'scheduled', pending: 'retry-later', leased: false })
  await rows(session, `select pullgate.complete($1, '[1,  2]')`, [id])
  expect(await shown(id)).toEqual({
    ...{ ...running, state: 'succeeded', leased: false },
    result: '[1,  2]',
  })
})

test('a lease is shown while its job is offered or running, and not after it was released, given back or ended', async () => {
  const ready = { state: 'ready', leased: false }
  const released = await runningJob(session, 'leases')
  expect(await shown(released.id)).toMatchObject({ state: 'running', leased: true })
  await release(session, released)
  expect(await shown(released.id)).toMatchObject(ready)
  const given = await runningJob(session, 'given')
  await byLease(session, 'give_back', [given])
  expect(await shown(given.id)).toMatchObject(ready)
  const offered = await runningJob(session, 'offered', { offer: 15 })
  expect(await shown(offered.id)).toMatchObject({
    state: 'offered',
    pending: 'waiting-for-acceptance',
    leased: true,
  })
  const ended = await runningJob(session, 'ended', { on_lost: 'orphan' })
  await endLease(session, ended.id)
  await runDue(session)
  expect(await shown(ended.id)).toMatchObject({
    state: 'orphaned',
    pending: 'waiting-for-decision',
    leased: false,
  })
  const delivered = await runningJob(session, 'delivered', { ack: 'auto', dedupe_key: 'k' })
  await byLease(session, 'confirm', [delivered])
  expect(await shown(delivered.id)).toMatchObject({ state: 'delivered', pending: null, leased: false })
  // It still counts: only the view leaves it out.
  expect((await readJob(session, ended.id))['lease']).toBe(ended.lease)
})

test('retry says what it is for, and an outcome that stands what can be done', async () => {
  const succeeded = await runningJob(session, 'retried')
  await complete(session, succeeded)
  const delivered = await runningJob(session, 'retried2', { ack: 'auto', dedupe_key: 'k' })
  await byLease(session, 'confirm', [delivered])
  for (const { id } of [succeeded, delivered]) {
    const error = await refusal(session, 'select pullgate.retry($1)', [id])
    expect(error.code).toBe('PL007')
    expect(error.message).toMatch(/cannot be retried: it is (succeeded|delivered)$/)
    expect(error.hint).toMatch(/^Retry is for failed, orphaned, cancelled and expired jobs\./)
  }
  const refused = await refusal(session, 'select pullgate.fail($1, $2)', [succeeded.id, 'no'])
  expect([refused.code, refused.hint]).toEqual(['PL007', expect.not.stringContaining('retry')])
  const failed = await publish(session, 'retried3')
  await rows(session, `select pullgate.fail($1, 'no')`, [failed])
  const over = await refusal(session, 'select pullgate.complete($1)', [failed])
  expect([over.code, over.hint]).toEqual(['PL007', expect.stringContaining('pullgate.retry')])
})
