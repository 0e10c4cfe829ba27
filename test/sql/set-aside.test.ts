import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claim,
  endLease,
  publish,
  readJob,
  refusal,
  row,
  rows,
  runDue,
  runningJob,
  stateOf,
  subscribe,
  value,
} from './jobs.ts'
import type { Held, PublishOptions, SubscribeOptions } from './jobs.ts'

/** A job whose id history holds already cannot be moved there: the statement that tries fails on it, every time. */
const database = useDatabase()
let session: pg.Client
let topic = ''
let count = 0

beforeAll(async () => {
  session = await database.session()
})
beforeEach(() => {
  topic = `aside_${++count}`
})

/** From now on moving the job to history fails: 23505 on its primary key. */
async function takeId({ id }: { id: string }): Promise<void> {
  await rows(
    session,
    `insert into pullgate.history (
        day_slot, id, lane_id, topic_id, due_at, created_at, finished_at, priority, attempts, max_attempts, deliveries,
        auto_ack, state, on_lost, log, job_spec)
      select pullgate.day_slot(clock_timestamp()), j.id, j.lane_id, 0, now(), now(), now(), 0, 0, 1, 0, false, 'failed',
          'fail', '[]', '"older"'
        from pullgate.job j where j.id = $1`,
    [id],
  )
}
/** Three jobs in the same condition; the one in the middle cannot be moved. */
async function three<T extends Held>(make: () => Promise<T>): Promise<[T, T, T]> {
  const jobs: [T, T, T] = [await make(), await make(), await make()]
  await takeId(jobs[1])
  return jobs
}
const published = async (options: PublishOptions) => ({
  id: await publish(session, topic, options),
  lease: '',
})
const running = (options: PublishOptions & SubscribeOptions) => runningJob(session, topic, options)
const liveState = (job: Held) => value(session, 'select state from pullgate.job where id = $1', [job.id])
const states = async (jobs: readonly Held[]) => [
  await stateOf(session, jobs[0]?.id ?? ''),
  await liveState(jobs[1] as Held),
  await stateOf(session, jobs[2]?.id ?? ''),
]
const past = (column: string, jobs: readonly Held[]) =>
  rows(session, `update pullgate.job set ${column} = now() - interval '1 s' where id = any ($1::bigint[])`, [
    jobs.map(({ id }) => id),
  ])
const endLeases = (jobs: readonly Held[]) => Promise.all(jobs.map(({ id }) => endLease(session, id)))
const cancelAll = (jobs: readonly Held[]) =>
  Promise.all(jobs.map(({ id }) => rows(session, 'select pullgate.cancel($1)', [id])))
const underGateway = (jobs: readonly Held[], gateway: number) =>
  rows(
    session,
    `update pullgate.job set gateway_id = $2::integer, claim_id = $2::integer, claimed_at = clock_timestamp() - interval '3 s'
      where id = any ($1::bigint[])`,
    [jobs.map(({ id }) => id), gateway],
  )

describe('a job that cannot be moved is set aside, and the others go on', () => {
  test('when deadlines pass', async () => {
    const jobs = await three(() => published({ expires_at: '2100-01-01' }))
    await past('expires_at', jobs)
    expect(await runDue(session)).toMatchObject({ expired: 3 })
    expect(await states(jobs)).toEqual(['expired', 'orphaned', 'expired'])
  })
  test('when leases end, with jobs of other topics that are due', async () => {
    const jobs = await three(() => running({ on_lost: 'fail' }))
    const elsewhere = await publish(session, `${topic}_other`, { delay: '1 hour' })
    await rows(session, `update pullgate.job set due_at = now() where id = $1`, [elsewhere])
    await endLeases(jobs)
    expect(await runDue(session)).toMatchObject({ promoted: 1, leases_lost: { failed: 2, orphaned: 1 } })
    expect(await states(jobs)).toEqual(['failed', 'orphaned', 'failed'])
    expect(await stateOf(session, elsewhere)).toBe('ready')
  })
  test('when offers end for the last time', async () => {
    const jobs = await three(() => running({ offer: 15 }))
    await rows(session, 'update pullgate.job set unaccepted = 20 where topic_id = pullgate.topic_id($1)', [
      topic,
    ])
    await endLeases(jobs)
    await runDue(session)
    expect(await states(jobs)).toEqual(['failed', 'orphaned', 'failed'])
  })
  test('when deliveries are confirmed: none is handed out again', async () => {
    const jobs = await three(() => running({ ack: 'auto' }))
    expect(await byLease(session, 'confirm', jobs)).toBe(3)
    expect(await states(jobs)).toEqual(['delivered', 'orphaned', 'delivered'])
    expect(await claim(session, topic, await subscribe(session, topic), 5)).toEqual([])
  })
  test('when dedupe keys of delivered jobs are released', async () => {
    const keys = ['a', 'b', 'c']
    const jobs = await three(() => running({ ack: 'auto', dedupe_key: keys.pop() ?? '' }))
    await byLease(session, 'confirm', jobs)
    await past('lease_check_at', jobs)
    await runDue(session)
    expect(await states(jobs)).toEqual(['delivered', 'orphaned', 'delivered'])
  })
  test('when cancelled jobs are given back', async () => {
    const jobs = await three(() => running({}))
    await cancelAll(jobs)
    expect(await byLease(session, 'give_back', jobs)).toBe(3)
    expect(await states(jobs)).toEqual(['cancelled', 'orphaned', 'cancelled'])
  })
  test('when deliveries are in doubt', async () => {
    const jobs = await three(() => running({ ack: 'auto', on_lost: 'fail' }))
    expect(await byLease(session, 'doubt', jobs)).toBe(3)
    expect(await states(jobs)).toEqual(['failed', 'orphaned', 'failed'])
  })
  test('when their gateway has died', async () => {
    const jobs = await three(() => running({ ack: 'auto', on_lost: 'fail' }))
    await underGateway(jobs, 700_001)
    expect(await value(session, `select pullgate.bury('{700001}')`)).toBe(3)
    expect(await states(jobs)).toEqual(['failed', 'orphaned', 'failed'])
  })
  test('when their gateway has another id', async () => {
    const jobs = await three(() => running({ ack: 'auto' }))
    await cancelAll(jobs)
    await underGateway(jobs, 700_002)
    expect(await value(session, `select pullgate.retire('{700002}', 0, '{}', '{}')`)).toBe(3)
    expect(await states(jobs)).toEqual(['cancelled', 'orphaned', 'cancelled'])
  })
  test('when the answer of their claim was lost', async () => {
    const jobs = await three(() => running({ ack: 'auto' }))
    await cancelAll(jobs)
    await underGateway(jobs, 700_003)
    const subscriptions = await rows(
      session,
      `select array_agg(distinct subscription_id) as ids from pullgate.job where id = any ($1::bigint[])`,
      [jobs.map(({ id }) => id)],
    )
    expect(
      await value(session, `select pullgate.give_back_unheard('{700003}', $1, 60)`, [
        subscriptions[0]?.['ids'],
      ]),
    ).toBe(3)
    expect(await states(jobs)).toEqual(['cancelled', 'orphaned', 'cancelled'])
  })
  test('when their subscription is ended with release', async () => {
    const jobs = await three(() => running({ name: topic }))
    await cancelAll(jobs)
    await rows(
      session,
      `select pullgate.unsubscribe(s.id, true) from pullgate.subscription s where s.name = $1 and s.ended_at is null`,
      [topic],
    )
    expect(await states(jobs)).toEqual(['cancelled', 'orphaned', 'cancelled'])
  })
  test('when scheduled jobs cannot be made ready, each for its own reason', async () => {
    const jobs = await Promise.all(Array.from({ length: 9 }, () => published({ delay: '1 hour', spec: '7' })))
    const [bad, worse] = [jobs[2]?.id, jobs[7]?.id]
    await rows(
      session,
      `alter table pullgate.job add constraint test_refuses check (state <> 'ready' or id not in (${bad}, ${worse}))`,
    )
    try {
      await past('due_at', jobs)
      expect(await runDue(session)).toMatchObject({ promoted: 9 })
      const now = await Promise.all(jobs.map(({ id }) => stateOf(session, id)))
      expect(now.filter((state) => state === 'ready')).toHaveLength(7)
      expect([now[2], now[7]]).toEqual(['orphaned', 'orphaned'])
      expect((await readJob(session, bad ?? ''))['last_error']).toBe(
        'set aside: the database refused to process the job (SQLSTATE 23514, test_refuses)',
      )
    } finally {
      await rows(session, 'alter table pullgate.job drop constraint test_refuses')
    }
  })
})

test('a job that was set aside is left alone, and a person decides', async () => {
  const [, job] = await three(() => running({ on_lost: 'fail' }))
  await endLease(session, job.id)
  await runDue(session)
  expect(await runDue(session)).toMatchObject({ leases_lost: {}, expired: 0 })
  const { log, last_error } = await row(session, 'select log, last_error from pullgate.job where id = $1', [
    job.id,
  ])
  expect(last_error).toMatch(/^set aside: .*\(SQLSTATE 23505, history_\d\d_pkey\)$/)
  expect(log).toMatchObject([{ outcome: 'set aside', state: 'orphaned' }])
  // The doctor names the first few.
  await rows(session, `delete from pullgate.job where state = 'orphaned' and id <> $1`, [job.id])
  const [problem] = await rows(session, 'select * from pullgate.doctor()')
  expect(problem).toMatchObject({ problem: 'jobs-set-aside', things: 1 })
  expect(problem?.['detail']).toContain(`job ${job.id} set aside`)
  // Whoever gives the older row up can have the job end, or run again.
  await rows(session, `delete from pullgate.history where id = $1`, [job.id])
  expect(await value(session, 'select pullgate.retry($1)', [job.id])).toBe('ready')
})

test('an error that is not of a job is raised, and sets nothing aside', async () => {
  const job = await running({ on_lost: 'fail' })
  await endLease(session, job.id)
  await rows(session, 'alter table pullgate.history rename to history_away')
  try {
    expect(await refusal(session, 'select pullgate.run_due(10, null)')).toMatchObject({ code: '42P01' })
  } finally {
    await rows(session, 'alter table pullgate.history_away rename to history')
  }
  expect(await stateOf(session, job.id)).toBe('running')
})

describe('a sequence that is behind', () => {
  const last = (name: string) => value(session, `select last_value from pullgate.${name}`)
  const highest = () =>
    value(
      session,
      'select max(id) from (select id from pullgate.job union select id from pullgate.history) r',
    )

  test('fails a publish by name, where it once looked like a dedupe hit', async () => {
    const id = await publish(session, topic)
    await rows(session, `select setval('pullgate.job_id_seq', $1, false)`, [id])
    for (const options of [{}, { dedupe_key: 'k' }]) {
      await rows(session, `select setval('pullgate.job_id_seq', $1, false)`, [id])
      const sql = 'select pullgate.publish($1, $2::text, dedupe_key => $3)'
      expect(await refusal(session, sql, [topic, '1', options.dedupe_key])).toMatchObject({
        code: '23505',
        constraint: 'job_pkey',
      })
    }
    await rows(session, 'select pullgate.mend_sequences()')
  })
  test('is named by the doctor, and moved forward', async () => {
    await publish(session, topic)
    await rows(
      session,
      `select setval('pullgate.job_id_seq', 1, false), setval('pullgate.job_seq', 1, false)`,
    )
    const found = await rows(session, `select * from pullgate.doctor() where problem = 'sequence-behind'`)
    expect(found).toMatchObject([{ things: 2 }])
    expect(await value(session, 'select pullgate.mend_sequences()')).toEqual([
      'pullgate.job_id_seq',
      'pullgate.job_seq',
    ])
    expect(await last('job_id_seq')).toBe(await highest())
    expect(await value(session, 'select pullgate.mend_sequences()')).toEqual([])
    expect(await rows(session, `select * from pullgate.doctor() where problem = 'sequence-behind'`)).toEqual(
      [],
    )
  })
  test('is jumped over a long gap, and counts ids of history', async () => {
    await rows(
      session,
      `insert into pullgate.history (
          day_slot, id, lane_id, topic_id, due_at, created_at, finished_at, priority, attempts, max_attempts, deliveries,
          auto_ack, state, on_lost, log, job_spec)
        values (3, 50000000, 0, 0, now(), now(), now(), 0, 0, 1, 0, false, 'failed', 'fail', '[]', '1')`,
    )
    await rows(session, 'select pullgate.mend_sequences()')
    expect(await publish(session, topic)).toBe('50000001')
  })
  test('is not thought behind while publishers are at work', async () => {
    const other = await database.session()
    await other.query('begin')
    await publish(other, topic)
    await publish(session, topic)
    expect(await value(session, 'select pullgate.mend_sequences()')).toEqual([])
    await other.query('commit')
    expect(await value(session, 'select pullgate.mend_sequences()')).toEqual([])
  })
})
