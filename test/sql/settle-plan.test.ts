import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { claim, publish, rows, subscribe } from './jobs.ts'
import type { Claimed } from './jobs.ts'
import { explainedAnew, explainedSession } from './plans.ts'
import type { Explained } from './plans.ts'

/** What settles and heartbeats do to the table: their plans, as auto_explain reports them, and their updates. */
const database = useDatabase()
const many = 60_000

let subscription = ''
/** Made in another session: the plans are those of settles alone. */
async function running(count: number): Promise<Claimed[]> {
  await rows(database, `select pullgate.publish_many('plan', array_fill('1'::text, array[$1::integer]))`, [
    count,
  ])
  return claim(database, 'plan', subscription, count)
}
const call = (session: pg.Client, name: string, jobs: readonly Claimed[], rest: string) =>
  rows<{ status: string }>(
    session,
    `select status from pullgate.${name}($1::bigint[], $2::uuid[], ${rest.replaceAll('n]', 'cardinality($1::bigint[])]')})`,
    [jobs.map(({ id }) => id), jobs.map(({ lease }) => lease)],
  )
const heartbeats = (session: pg.Client, jobs: readonly Claimed[]) =>
  call(session, 'heartbeats', jobs, 'array_fill(null::integer, array[n]), array_fill(null::text, array[n])')

/** Every call, of one job and of several; those of several have one with a stale lease among them. */
async function exercise(session: pg.Client): Promise<void> {
  for (const size of [1, 5]) {
    const take = async () => {
      const jobs = await running(size)
      return size === 1
        ? jobs
        : jobs.map((job, index) => (index === 2 ? { ...job, lease: jobs[0]?.lease ?? '' } : job))
    }
    const beating = await take()
    await heartbeats(session, beating)
    await call(session, 'settle_completes', beating, 'array_fill(null::text, array[n])')
    for (const after of [0, 60]) {
      const rest = `array_fill('x'::text, array[n]), array_fill(${after} = 0, array[n]), array_fill(${after}::float8, array[n])`
      await call(session, 'settle_fails', await take(), rest)
    }
    await call(session, 'settle_releases', await take(), 'array_fill(0::float8, array[n])')
  }
}

let planned: Explained
beforeAll(async () => {
  subscription = await subscribe(database, 'plan')
  planned = await explainedSession(database)
  await exercise(planned.session)
  await publish(database, 'plan')
  await database.query(
    `insert into pullgate.job (lane_id, topic_id, state, lease, lease_check_at, lease_ends_at, job_spec)
      select l.id, l.topic_id, 'running', gen_random_uuid(), now() + interval '1 day', now() + interval '1 day', '1'
        from generate_series(1, $1) n
        join pullgate.lane l on l.topic = 'plan'`,
    [many],
  )
})

// Statistics told to the catalogue would make the first session plan again: it comes first.
const kept = () => Promise.resolve(planned)
const fresh = () => explainedAnew(database)

describe.each([
  ['planned on an empty table', kept],
  ['planned on the full table', fresh],
])('with %s', (_, from) => {
  let plans: string[] = []
  beforeAll(async () => {
    const explained = await from()
    explained.plans.length = 0
    await exercise(explained.session)
    plans = explained.plans.filter((plan) => !/publish|for update skip locked|gen_random_uuid/.test(plan))
  })

  test('settles and heartbeats reach jobs by id alone, and history by id', () => {
    expect(plans.length).toBeGreaterThan(50)
    for (const plan of plans) {
      expect(plan).not.toMatch(/Seq Scan on (pullgate\.)?(job|history)/)
      expect(plan).not.toMatch(/Scan using job_(?!pkey)|Bitmap Index Scan on job_(?!pkey)/)
      expect(plan).not.toMatch(/Scan using history_\d\d_topic/)
    }
  })
  test('several jobs are locked in the order of their ids, before anything is done to one', () => {
    const locks = plans.filter((plan) => plan.includes('order by j.id for update'))
    // Of completes, fails twice, releases and heartbeats; a lone job needs none.
    expect(locks).toHaveLength(5)
    for (const plan of locks) expect(plan).toMatch(/LockRows.*\n\s+->\s+(Sort|Index Scan using job_pkey)/)
  })
})

describe('a heartbeat is a heap-only update', () => {
  /** The session's own counts, which it has before it reports them to all. */
  async function updates(session: pg.Client): Promise<number[]> {
    const counts = `select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_xact_user_tables
      where relid = 'pullgate.job'::regclass`
    const [found] = await rows<{ all: string; hot: string }>(session, counts)
    return [Number(found?.all), Number(found?.hot)]
  }
  async function beat(session: pg.Client, jobs: readonly Claimed[]): Promise<{ all: number; hot: number }> {
    await session.query('begin')
    const [all = 0, hot = 0] = await updates(session)
    await heartbeats(session, jobs)
    for (const job of jobs) await heartbeats(session, [job])
    const [allAfter = 0, hotAfter = 0] = await updates(session)
    await session.query('commit')
    return { all: allAfter - all, hot: hotAfter - hot }
  }

  test('alone and among many, and would not be with an index on lease_ends_at', async () => {
    await database.query('truncate pullgate.job')
    const session = await database.session()
    const jobs = await running(5)
    expect(await beat(session, jobs)).toEqual({ all: 10, hot: 10 })
    await database.query('create index would_spoil_it on pullgate.job (lease_ends_at)')
    expect(await beat(session, jobs)).toEqual({ all: 10, hot: 0 })
    await database.query('drop index pullgate.would_spoil_it')
  })
})
