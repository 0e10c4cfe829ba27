import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  ageHistory,
  byLease,
  claim,
  claimOne,
  complete,
  fail,
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

const database = useDatabase()
let one: pg.Client
let two: pg.Client

beforeAll(async () => {
  one = await database.session()
  two = await database.session()
})
beforeEach(async () => {
  await one.query('truncate pullgate.job, pullgate.history')
})

const retry = (id: string, session = one) => value(session, 'select pullgate.retry($1)', [id])

describe('a finished job', () => {
  test('leaves the hot table whole, with its outcome and spec', async () => {
    const spec = '{"nul": "\\u0000", "n": 12345678901234567890}'
    const job = await runningJob(one, 'leaves', {
      spec,
      dedupe_key: 'k',
      priority: 2,
      traceparent: 't',
      on_lost: 'orphan',
    })
    const live = await readJob(one, job.id)
    await complete(one, job, '{"ok":  true}')
    const { seq, live: _, announced, lease_ends_at, lease_check_at, ...others } = live
    // Of use to its gateway while the job is live.
    const { gateway_id, claim_id, unconfirmed, ...rest } = others
    // Of how it is held.
    const { unaccepted, pull_key, given_again, ...kept } = rest
    expect([unaccepted, pull_key, given_again]).toEqual([0, null, false])
    const left = [seq, announced, lease_ends_at, lease_check_at, gateway_id, claim_id, unconfirmed]
    expect(left.every((column) => column !== null)).toBe(true)
    const finished = await readJob(one, job.id)
    expect(finished).toMatchObject({
      ...kept,
      state: 'succeeded',
      settled: 'complete',
      result: '{"ok":  true}',
      live: false,
    })
    const slot =
      'select day_slot = pullgate.day_slot(finished_at) as own, finished_at from pullgate.history where id = $1'
    expect(await row(one, slot, [job.id])).toEqual({ own: true, finished_at: expect.any(Date) as Date })
  })
  test('is only ever in one of the two, under one snapshot', async () => {
    const job = await runningJob(one, 'moves')
    await two.query('begin isolation level repeatable read')
    const look = () => rows(two, 'select state from pullgate.jobs where id = $1', [job.id])
    expect(await look()).toEqual([{ state: 'running' }])
    await fail(one, job, { retry: false })
    expect(await look()).toEqual([{ state: 'running' }])
    await two.query('commit')
    expect(await look()).toEqual([{ state: 'failed' }])
    await retry(job.id)
    expect(await look()).toEqual([{ state: 'ready' }])
  })
})

describe('upkeep', () => {
  const upkeep = (session = one) => value<number>(session, 'select pullgate.upkeep()')
  const finished = async (days: number) => {
    const id = await publish(one, 'kept')
    await rows(one, 'select pullgate.complete($1)', [id])
    await ageHistory(one, id, days)
    return id
  }
  const kept = async () =>
    (await rows<{ id: string }>(one, 'select id from pullgate.history order by id')).map((found) => found.id)

  test('drops the days past history_days, whole and once, and no other', async () => {
    const ids: string[] = []
    for (let days = 0; days <= 31; days++) ids.push(await finished(days))
    expect(await upkeep()).toBe(17)
    expect(await kept()).toEqual(ids.slice(0, 15))
    expect(await upkeep()).toBe(0)
  })
  test('follows history_days, from 1 to 30', async () => {
    const ids: string[] = []
    for (let days = 0; days <= 30; days++) ids.push(await finished(days))
    await rows(one, 'select pullgate.configure(history_days => 30)')
    expect(await upkeep()).toBe(0)
    await rows(one, 'select pullgate.configure(history_days => 1)')
    await upkeep()
    expect(await kept()).toEqual(ids.slice(0, 2))
    await rows(one, 'select pullgate.configure(history_days => 14)')
    for (const setting of ['history_days => 60', 'job_spec_max_bytes => 1', 'subscription_idle_days => 0']) {
      const { code, message, hint } = await refusal(one, `select pullgate.configure(${setting})`)
      const name = setting.replace(/ =>.*/, '')
      expect([code, message]).toEqual(['PL005', `bad ${name}`])
      expect(hint).toMatch(new RegExp(`${name} is a whole number from \\d+ to \\d+`))
    }
  })
  test('never empties the slot that takes rows now, whatever an earlier turn of the ring left in it', async () => {
    const old = await finished(32)
    expect(await upkeep()).toBe(0)
    expect(await kept()).toEqual([old])
  })
  test('gives up on a slot that a reader holds, and takes it the next time', async () => {
    const id = await finished(20)
    await two.query('begin')
    await two.query('select * from pullgate.history')
    expect(await upkeep()).toBe(0)
    expect(await kept()).toEqual([id])
    await two.query('commit')
    expect(await upkeep()).toBe(1)
  })
  test('is done by one session at a time', async () => {
    await finished(20)
    await two.query(`begin; select pg_advisory_xact_lock(hashtext('pullgate.upkeep'))`)
    expect(await upkeep()).toBe(0)
    await two.query('commit')
    expect(await upkeep()).toBe(1)
  })
})

describe('retry', () => {
  const cases = {
    failed: async () => {
      const job = await runningJob(one, 'redrive')
      await fail(one, job, { retry: false })
      return job.id
    },
    cancelled: async () => {
      const id = await publish(one, 'redrive', { delay: '1 hour' })
      await rows(one, `select pullgate.cancel($1, 'no')`, [id])
      return id
    },
    expired: async () => {
      const id = await publish(one, 'redrive', { expires_at: '2020-01-01' })
      await runDue(one)
      return id
    },
    orphaned: async () => {
      const job = await runningJob(one, 'redrive', { on_lost: 'orphan', expires_at: '2199-01-01' })
      await byLease(one, 'doubt', [job])
      await rows(one, `update pullgate.job set expires_at = '2020-01-01' where id = $1`, [job.id])
      return job.id
    },
  }
  test.each(Object.entries(cases))(
    'brings a job that %s back: ready, all attempts, no deadline',
    async (_, make) => {
      const id = await make()
      expect(await retry(id)).toBe('ready')
      const expected = {
        state: 'ready',
        attempts: 0,
        expires_at: null,
        cancel_reason: null,
        lease: null,
        live: true,
      }
      expect(await readJob(one, id)).toMatchObject(expected)
      expect(await runDue(one)).toMatchObject({ expired: 0 })
      expect(await claimOne(one, 'redrive', await subscribe(one, 'redrive'))).toMatchObject({
        id,
        attempt: 1,
      })
      expect(await rows(one, 'select id from pullgate.history')).toEqual([])
    },
  )
  test('puts it before the jobs of its priority that were never handed out', async () => {
    const id = await cases.failed()
    await publish(one, 'redrive')
    await retry(id)
    expect(await claimOne(one, 'redrive', await subscribe(one, 'redrive'))).toMatchObject({ id })
  })
  test('by two at once is one retry', async () => {
    const id = await cases.failed()
    await one.query('begin')
    await retry(id)
    const second = retry(id, two)
    await waitsForLock(database, two)
    await one.query('commit')
    expect(await second).toBe('ready')
    expect((await claim(one, 'redrive', await subscribe(one, 'redrive'), 5)).length).toBe(1)
  })
  test('of a job that has succeeded or was delivered is PL007', async () => {
    for (const outcome of ['succeeded', 'delivered']) {
      const job = await runningJob(one, 'redrive', { ack: outcome === 'delivered' ? 'auto' : 'explicit' })
      await (outcome === 'delivered' ? byLease(one, 'confirm', [job]) : complete(one, job))
      expect((await refusal(one, 'select pullgate.retry($1)', [job.id])).code).toBe('PL007')
      expect(await stateOf(one, job.id)).toBe(outcome)
    }
  })
  test('of a job whose dedupe key another holds is PL008 and moves nothing', async () => {
    const first = await publish(one, 'key', { dedupe_key: 'k' })
    await rows(one, `select pullgate.fail($1, 'no')`, [first])
    const second = await publish(one, 'key', { dedupe_key: 'k' })
    const error = await refusal(one, 'select pullgate.retry($1)', [first])
    expect([error.code, error.message]).toEqual(['PL008', expect.stringContaining(second)])
    expect(await readJob(one, first)).toMatchObject({ state: 'failed', live: false })
    await rows(one, 'select pullgate.cancel($1)', [second])
    expect(await retry(first)).toBe('ready')
  })
  test('of an unknown job is PL006', async () => {
    expect((await refusal(one, 'select pullgate.retry(999999)')).code).toBe('PL006')
  })
})
