import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  claim,
  claimOne,
  claimSlots,
  fail,
  publish,
  readJob,
  release,
  rows,
  runDue,
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

async function publishMany(topic: string, count: number, session = one): Promise<string[]> {
  const sql = `select id from pullgate.publish_many($1, (select array_agg(n::text order by n) from generate_series(1, $2::int) n)) as id`
  return (await rows<{ id: string }>(session, sql, [topic, count])).map((job) => job.id)
}
const specs = (jobs: { job_spec: string }[]) => jobs.map((job) => job.job_spec)

describe('two sessions', () => {
  test('never get the same job, and neither waits', async () => {
    await publishMany('shared', 10)
    const subscription = await subscribe(one, 'shared')
    await two.query(`set lock_timeout = '1s'`)
    await one.query('begin')
    await two.query('begin')
    expect(specs(await claim(one, 'shared', subscription, 4))).toEqual(['1', '2', '3', '4'])
    expect(specs(await claim(two, 'shared', subscription, 4))).toEqual(['5', '6', '7', '8'])
    expect(specs(await claim(one, 'shared', subscription, 4))).toEqual(['9', '10'])
    expect(await claim(two, 'shared', subscription, 4)).toEqual([])
    await one.query('commit')
    await two.query('commit')
  })
  test('racing for 400 jobs get each once', async () => {
    await publishMany('race', 400)
    const subscription = await subscribe(one, 'race')
    const drain = async (session: pg.Client, taken: string[] = []): Promise<string[]> => {
      const jobs = await claim(session, 'race', subscription, 3)
      return jobs.length === 0 ? taken : drain(session, [...taken, ...specs(jobs)])
    }
    const [mine, theirs] = await Promise.all([drain(one), drain(two)])
    expect(mine.length + theirs.length).toBe(400)
    expect(new Set([...mine, ...theirs]).size).toBe(400)
  })
  test('a claim that rolls back leaves its jobs claimable at once, as they were', async () => {
    const [id = ''] = await publishMany('undone', 1)
    const subscription = await subscribe(one, 'undone')
    const before = await readJob(one, id)
    await one.query('begin')
    await claimOne(one, 'undone', subscription)
    expect(await claim(two, 'undone', subscription)).toEqual([])
    await one.query('rollback')
    expect(await readJob(one, id)).toEqual(before)
    expect(await claimOne(two, 'undone', subscription)).toMatchObject({ id, attempt: 1 })
  })
})

describe('order', () => {
  test('is by priority, then jobs that came back, then first in, first out', async () => {
    for (const spec of ['1', '2', '3']) await publish(one, 'order', { spec })
    const subscription = await subscribe(one, 'order')
    const [first, second] = await claim(one, 'order', subscription, 2)
    await publish(one, 'order', { spec: '4' })
    await publish(one, 'order', { spec: '"low"', priority: -1 })
    await publish(one, 'order', { spec: '"high"', priority: 1 })
    await release(one, { id: second?.id ?? '', lease: second?.lease ?? '' })
    await fail(one, { id: first?.id ?? '', lease: first?.lease ?? '' }, { after: 0 })
    expect(specs(await claim(one, 'order', subscription, 10))).toEqual([
      '"high"',
      '2',
      '1',
      '3',
      '4',
      '"low"',
    ])
  })
  test('a scheduled job queues from when it falls due, a scheduled retry with those that came back', async () => {
    const scheduled = await publish(one, 'due', { spec: '1', delay: '1 hour' })
    await publishMany('due', 2)
    const subscription = await subscribe(one, 'due')
    await fail(one, await claimOne(one, 'due', subscription), { after: 60 })
    await rows(
      one,
      `update pullgate.job set due_at = clock_timestamp() where topic_id = pullgate.topic_id('due') and state = 'scheduled'`,
    )
    expect(await runDue(one)).toMatchObject({ promoted: 2, more: false })
    const jobs = await claim(one, 'due', subscription, 10)
    expect(jobs.map((job) => [job.job_spec, job.redelivered])).toEqual([
      ['1', true],
      ['2', false],
      ['1', false],
    ])
    expect(jobs[2]?.id).toBe(scheduled)
  })
})

describe('slots', () => {
  test('get jobs run-length, in the order of the waiters, under their own settings', async () => {
    await publishMany('slots', 6)
    const auto = await subscribe(one, 'slots', { ack: 'auto', lease: 600 })
    const explicit = await subscribe(one, 'slots', { lease: 120 })
    const jobs = await claimSlots(one, 'slots', [
      [explicit, 2],
      [auto, 1],
      [explicit, 1],
      [auto, 5],
    ])
    expect(jobs.map((job) => [job.slot, job.job_spec, job.lease_seconds])).toEqual([
      [1, '1', 120],
      [1, '2', 120],
      [2, '3', 600],
      [3, '4', 120],
      [4, '5', 600],
      [4, '6', 600],
    ])
    const held = await rows(
      one,
      `select subscription_id, auto_ack, extract(epoch from lease_ends_at - claimed_at)::int as seconds
        from pullgate.job where topic_id = pullgate.topic_id('slots') order by id`,
    )
    expect(held[0]).toEqual({ subscription_id: explicit, auto_ack: false, seconds: 120 })
    expect(held[2]).toEqual({ subscription_id: auto, auto_ack: true, seconds: 15 })
    expect(new Set(jobs.map((job) => job.lease)).size).toBe(6)
  })
  test('of an ended or unknown subscription get a row without a job, the others their jobs', async () => {
    await publishMany('ended', 3)
    const ended = await subscribe(one, 'ended')
    const live = await subscribe(one, 'ended')
    await rows(one, 'select pullgate.unsubscribe($1, false)', [ended])
    const unknown = '00000000-0000-4000-8000-000000000000'
    const slots: [string, number][] = [
      [ended, 1],
      [live, 1],
      [unknown, 2],
    ]
    expect((await claimSlots(one, 'ended', slots)).map((job) => [job.slot, job.job_spec])).toEqual([
      [2, '1'],
      [1, null],
      [3, null],
    ])
    expect((await claimSlots(one, 'ended', [[ended, 5]])).map((job) => [job.slot, job.id])).toEqual([
      [1, null],
    ])
    expect(await value(one, `select ready from pullgate.topics where topic = 'ended'`)).toBe('2')
  })
})

describe('not handed out are', () => {
  test('jobs of a paused topic, until it goes on', async () => {
    await publishMany('paused', 1)
    const subscription = await subscribe(one, 'paused')
    await rows(one, `select pullgate.configure_topic('paused', paused => true)`)
    expect(await claim(one, 'paused', subscription)).toEqual([])
    await rows(one, `select pullgate.configure_topic('paused', paused => false)`)
    expect(specs(await claim(one, 'paused', subscription))).toEqual(['1'])
  })
  test('expired and scheduled jobs', async () => {
    const expired = await publish(one, 'expired', { expires_at: '2020-01-01' })
    await publish(one, 'expired', { delay: '1 hour' })
    await publish(one, 'expired', { spec: '2', expires_at: '2199-01-01' })
    const subscription = await subscribe(one, 'expired')
    expect(specs(await claim(one, 'expired', subscription, 5))).toEqual(['2'])
    expect(await stateOf(one, expired)).toBe('ready')
  })
  test('jobs of other topics', async () => {
    await publishMany('mine', 1)
    const subscription = await subscribe(one, ['mine', 'yours'])
    expect(await claim(one, 'yours', subscription)).toEqual([])
  })
})

describe('a job published in a transaction that commits late', () => {
  test('is claimable when it commits, after 1,000 later ones were claimed', async () => {
    const subscription = await subscribe(one, 'late')
    await publish(one, 'late')
    await two.query('begin')
    const late = await publish(two, 'late', { spec: '"late"' })
    await publishMany('late', 1000)
    while ((await claim(one, 'late', subscription, 100)).length > 0);
    await two.query('commit')
    expect(await claimOne(one, 'late', subscription)).toMatchObject({ id: late, job_spec: '"late"' })
  })
  test('has its number drawn after its transaction has an id', async () => {
    await publish(one, 'drawn')
    const column = `adrelid = 'pullgate.job'::regclass and adnum = (
      select attnum from pg_attribute where attrelid = adrelid and attname = 'seq')`
    const kept = await value(one, `select pg_get_expr(adbin, adrelid) from pg_attrdef where ${column}`)
    const observed = kept.replace(/nextval\(.*?\)/, 'pullgate.draw()')
    await database.query(`
      create table pullgate.seen (has_xid boolean);
      create function pullgate.draw() returns bigint language plpgsql as $$
        declare had_xid boolean := pg_current_xact_id_if_assigned() is not null;
        begin
          insert into pullgate.seen values (had_xid);
          return nextval('pullgate.job_seq');
        end $$;
      alter table pullgate.job alter seq set default ${observed}`)
    await publish(one, 'drawn')
    await rows(one, `select pullgate.publish_many('drawn', '{1}'::text[])`)
    await rows(one, `insert into pullgate.inbox (topic, job_spec) values ('drawn', '1')`)
    await rows(
      one,
      `insert into pullgate.job (lane_id, topic_id, state, job_spec)
        select l.id, l.topic_id, 'ready', '1' from pullgate.lane l where l.topic = 'drawn'`,
    )
    await database.query(`alter table pullgate.job alter seq set default ${kept}`)
    expect(await database.query('select has_xid, count(*) from pullgate.seen group by has_xid')).toEqual([
      { has_xid: true, count: '4' },
    ])
  })
  test('sequence and transaction id: a number below the sequence belongs to an id below a fresh one', async () => {
    await two.query('begin')
    const id = await publish(two, 'fence')
    const seq = await value(two, 'select seq from pullgate.job where id = $1', [id])
    const xid = await value(two, 'select pg_current_xact_id()')
    expect(BigInt(await value(one, 'select last_value from pullgate.job_seq'))).toBeGreaterThanOrEqual(
      BigInt(seq),
    )
    expect(BigInt(await value(one, 'select pg_current_xact_id()'))).toBeGreaterThan(BigInt(xid))
    expect(BigInt(await value(one, 'select pg_snapshot_xmin(pg_current_snapshot())'))).toBeLessThanOrEqual(
      BigInt(xid),
    )
    await two.query('commit')
  })
  test('a job that was released again and again is still claimed when its count is full', async () => {
    const id = await publish(one, 'worn')
    await rows(one, 'update pullgate.job set deliveries = 32767 where id = $1', [id])
    expect(await claim(one, 'worn', await subscribe(one, 'worn'))).toMatchObject([{ id }])
  })
  test('the sequence keeps no numbers back in a session', async () => {
    const cache = `select seqcache from pg_sequence where seqrelid = 'pullgate.job_seq'::regclass`
    expect(await value(one, cache)).toBe('1')
  })
})
