import { expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  byLease,
  claim,
  claimOne,
  heartbeat,
  publish,
  release,
  rows,
  runDue,
  stateOf,
  subscribe,
  value,
} from './jobs.ts'
import type { Held } from './jobs.ts'

/** What meets the setting aside of jobs from the side: other sessions, jobs that not even that helps. */
const database = useDatabase()
const past = `clock_timestamp() - interval '1 second'`

test('a subscription that is ended with release lets go of its own leases only', async () => {
  const [ended, other] = [await subscribe(database, 'ended', {}), await subscribe(database, 'ended', {})]
  for (let n = 0; n < 2; n++) await publish(database, 'ended')
  const first = await claimOne(database, 'ended', ended)
  const second = await claimOne(database, 'ended', ended)
  const [locker, ending] = [await database.session(), await database.session()]
  await locker.query('begin')
  await locker.query('select from pullgate.job where id = $1 for update', [first.id])
  const done = ending.query('select pullgate.unsubscribe($1, true)', [ended])
  await waitsForLock(database, ending)
  // Given back by its executor and claimed by the other subscription, while the end of the first one waits.
  await release(database, second)
  const again = await claimOne(database, 'ended', other)
  expect(again.id).toBe(second.id)
  await locker.query('commit')
  await done
  expect(await stateOf(database, first.id)).toBe('ready')
  expect(await heartbeat(database, again)).toMatchObject({ status: 'ok' })
})

test('a job that no update gets through is told of, keeps nobody else from falling due, and brings nobody back at once', async () => {
  const stuck = await publish(database, 'stuck', { spec: '"stuck"', delay: '1 hour' })
  const good = await publish(database, 'stuck', { delay: '1 hour' })
  await rows(database, `update pullgate.job set due_at = ${past} where id = any ($1::bigint[])`, [
    [stuck, good],
  ])
  await rows(
    database,
    `alter table pullgate.job add constraint test_stuck check (job_spec <> '"stuck"') not valid`,
  )
  try {
    expect(await runDue(database)).toMatchObject({ promoted: 1, more: false, stuck: 1 })
    expect(await stateOf(database, good)).toBe('ready')
    expect(await stateOf(database, stuck)).toBe('scheduled')
  } finally {
    await rows(database, 'alter table pullgate.job drop constraint test_stuck')
  }
})

test('nothing but a person moves a job that was set aside: its lease is void', async () => {
  const subscription = await subscribe(database, 'void', { ack: 'auto' })
  await publish(database, 'void')
  const job = await claimOne(database, 'void', subscription)
  await rows(database, `select pullgate.set_aside($1, '23505', 'some_constraint')`, [job.id])
  for (const verb of ['give_back', 'confirm', 'doubt'] as const)
    expect(await byLease(database, verb, [job])).toBe(0)
  expect(await heartbeat(database, job)).toMatchObject({ status: 'lost' })
  expect(await stateOf(database, job.id)).toBe('orphaned')
  expect(await value(database, 'select pullgate.retry($1)', [job.id])).toBe('ready')
})

test('giving many jobs back takes one subtransaction', async () => {
  const subscription = await subscribe(database, 'many')
  await rows(database, `select pullgate.publish_many('many', array_fill('1'::text, array[200]))`)
  const jobs = (await claim(database, 'many', subscription, 200)) as unknown as Held[]
  expect(await byLease(database, 'give_back', jobs)).toBe(200)
  const writers = `select count(distinct xmin::text) from pullgate.job where topic_id = pullgate.topic_id('many')`
  expect(await value(database, writers)).toBe('1')
})
