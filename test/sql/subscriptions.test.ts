import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  byLease,
  claim,
  claimOne,
  complete,
  publish,
  readJob,
  refusal,
  row,
  rows,
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

const unsubscribe = (id: string, release = false, session = one) =>
  value<boolean | null>(session, 'select pullgate.unsubscribe($1, $2)', [id, release])
const read = (id: string) => row(one, 'select * from pullgate.read_subscriptions($1)', [id])
const upkeep = () => rows(one, 'select pullgate.upkeep()')

describe('subscribe', () => {
  test('creates the subscription and its topics', async () => {
    const id = await subscribe(one, ['b', 'a'], { ack: 'auto', lease: 30, maxParked: 7 })
    const settings = { topics: ['b', 'a'], ack: 'auto', lease_seconds: 30, max_parked: 7, name: null }
    expect(await read(id)).toMatchObject({ ...settings, jobs_held: 0, ended_at: null, last_pull_at: null })
    expect(await rows(one, `select topic from pullgate.topics where topic in ('a', 'b') order by 1`)).toEqual(
      [{ topic: 'a' }, { topic: 'b' }],
    )
    expect((await refusal(one, `select pullgate.subscribe('{a,b/c}', null, 'auto', 60, null)`)).code).toBe(
      'PL001',
    )
  })
  test('without a name makes a new one each time, with a name the same one again', async () => {
    expect(await subscribe(one, 'a')).not.toBe(await subscribe(one, 'a'))
    const id = await subscribe(one, 'a', { name: 'pool' })
    expect(await subscribe(one, 'a', { name: 'pool' })).toBe(id)
  })
  test.each([
    ['topics', `'{b}', 'pool', 'explicit', 60, null`],
    ['ack', `'{a}', 'pool', 'auto', 60, null`],
    ['lease', `'{a}', 'pool', 'explicit', 61, null`],
    ['max parked', `'{a}', 'pool', 'explicit', 60, 1`],
  ])('with a name in use and other settings (%s) is PL009', async (_, settings) => {
    await subscribe(one, 'a', { name: 'pool' })
    expect((await refusal(one, `select pullgate.subscribe(${settings})`)).code).toBe('PL009')
  })
  test('with the name of an ended one makes a new one', async () => {
    const id = await subscribe(one, 'a', { name: 'reborn' })
    await unsubscribe(id)
    const next = await subscribe(one, 'b', { name: 'reborn' })
    expect(next).not.toBe(id)
    expect(await subscribe(one, 'b', { name: 'reborn' })).toBe(next)
  })
  test('with one name by two at once is one subscription', async () => {
    await one.query('begin')
    const first = await subscribe(one, 'a', { name: 'twins' })
    const second = subscribe(two, 'a', { name: 'twins' })
    await waitsForLock(database, two)
    await one.query('commit')
    expect(await second).toBe(first)
  })
  test('of the same new topics in opposite order does not deadlock', async () => {
    const topics = Array.from({ length: 20 }, (_, index) => `cross_${index}`)
    const third = await database.session()
    await third.query(`begin; select pullgate.configure_topic('cross_15')`)
    const forward = subscribe(one, topics)
    await waitsForLock(database, one)
    const backward = subscribe(two, [...topics].reverse())
    await waitsForLock(database, two)
    await third.query('rollback')
    expect(await forward).not.toBe(await backward)
  })
})

describe('unsubscribe', () => {
  test('says whether it ended it, and null of an unknown one', async () => {
    const id = await subscribe(one, 'end')
    expect([await unsubscribe(id), await unsubscribe(id)]).toEqual([true, false])
    expect(await unsubscribe('00000000-0000-4000-8000-000000000000')).toBeNull()
    expect(await read(id)).toMatchObject({ ended_at: expect.any(Date) as Date })
  })
  test('leaves its jobs to their leases, or with release gives them back', async () => {
    const id = await subscribe(one, 'leave')
    await rows(one, `select pullgate.publish_many('leave', '{1,2}'::text[])`)
    const jobs = await claim(one, 'leave', id, 2)
    await unsubscribe(id)
    expect(await read(id)).toMatchObject({ jobs_held: 2 })
    for (const job of jobs) expect(await stateOf(one, job.id ?? '')).toBe('running')
    await unsubscribe(id, true)
    expect(await read(id)).toMatchObject({ jobs_held: 0 })
    for (const job of jobs)
      expect(await readJob(one, job.id ?? '')).toMatchObject({ state: 'ready', attempts: 0 })
    const next = await claim(one, 'leave', await subscribe(one, 'leave'), 2)
    expect(next.map((job) => job.id)).toEqual(jobs.map((job) => job.id))
  })
  test('with release leaves the jobs of others alone', async () => {
    const mine = await subscribe(one, 'others')
    await publish(one, 'others')
    const theirs = await claimOne(one, 'others', await subscribe(one, 'others'))
    await unsubscribe(mine, true)
    expect(await complete(one, theirs)).toMatchObject({ status: 'ok' })
  })
  test('with release leaves a hand-over that is under way: the executor may have it', async () => {
    const job = await runningJob(one, 'handover', { ack: 'auto', on_lost: 'orphan', name: 'handover' })
    await unsubscribe(await subscribe(one, 'handover', { ack: 'auto', name: 'handover' }), true)
    expect(await stateOf(one, job.id)).toBe('running')
    expect(await byLease(one, 'confirm', [job])).toBe(1)
    expect(await stateOf(one, job.id)).toBe('delivered')
  })
  test('with release meets a settle half-way, without losing it', async () => {
    const id = await subscribe(one, 'halfway')
    await publish(one, 'halfway')
    const job = await claimOne(one, 'halfway', id)
    await two.query('begin')
    await complete(two, job)
    const ended = unsubscribe(id, true)
    await waitsForLock(database, one)
    await two.query('commit')
    expect(await ended).toBe(true)
    expect(await stateOf(one, job.id)).toBe('succeeded')
  })
})

describe('upkeep', () => {
  const age = (id: string, columns: string) =>
    rows(one, `update pullgate.subscription set ${columns} where id = $1`, [id])

  test('ends subscriptions that nobody pulled from for subscription_idle_days', async () => {
    const long = `clock_timestamp() - interval '7 days 1 minute'`
    const fresh = await subscribe(one, 'idle')
    const never = await subscribe(one, 'idle')
    const pulled = await subscribe(one, 'idle')
    const idle = await subscribe(one, 'idle')
    const busy = await subscribe(one, 'idle')
    await publish(one, 'idle')
    await claim(one, 'idle', busy)
    await age(never, `created_at = ${long}`)
    await age(pulled, `created_at = ${long}, last_pull_at = clock_timestamp() - interval '6 days'`)
    await age(idle, `created_at = ${long} - interval '1 day', last_pull_at = ${long}`)
    await age(busy, `created_at = ${long}, last_pull_at = ${long}`)
    await upkeep()
    const ended = await rows<{ id: string }>(
      one,
      'select id from pullgate.subscription where ended_at is not null',
    )
    const names = { fresh, never, pulled, idle, busy }
    const which = Object.entries(names).filter(([, id]) => ended.some((found) => found.id === id))
    expect(which.map(([name]) => name)).toEqual(['never', 'idle'])
  })
  test('forgets those that ended 14 days ago', async () => {
    const forgotten = await subscribe(one, 'old')
    const kept = await subscribe(one, 'old')
    await age(forgotten, `ended_at = clock_timestamp() - interval '14 days 1 minute'`)
    await age(kept, `ended_at = clock_timestamp() - interval '13 days'`)
    await upkeep()
    expect(await rows(one, 'select id from pullgate.read_subscriptions($1)', [forgotten])).toEqual([])
    expect(await unsubscribe(kept)).toBe(false)
  })
})

test('a pull is noted to the minute', async () => {
  const id = await subscribe(one, 'touch')
  const touch = () => rows(one, 'select pullgate.touch_subscriptions($1)', [[id]])
  await touch()
  const first = (await read(id))['last_pull_at']
  expect(first).toBeInstanceOf(Date)
  await touch()
  expect((await read(id))['last_pull_at']).toEqual(first)
  await rows(
    one,
    `update pullgate.subscription set last_pull_at = last_pull_at - interval '61 s' where id = $1`,
    [id],
  )
  await touch()
  expect((await read(id))['last_pull_at']).not.toEqual(first)
})
