import { randomUUID } from 'node:crypto'
import type { TestDatabase } from '../support/database.ts'
import { insertHistory, insertJobs } from '../support/crowd.ts'
import type { Columns, Jobs, State } from '../support/crowd.ts'

/** How each function and view of the schema is called, for the tests of their plans. */

export type Prepared = readonly unknown[]

export type Call = {
  readonly what: string
  readonly sql: string
  /** Makes what a call on `count` elements works on, and returns its parameters. */
  prepare(world: World, count: number): Promise<Prepared> | Prepared
  /** Why it may read all of something: then only the honest plan is what it is compared with. */
  readonly readsAll?: string
  /** Planned in the session of whoever reads: a view, to which no settings can be given. */
  readonly isView?: true
}

export type World = {
  readonly database: TestDatabase
  /** The first id of a job that is not of the crowd. */
  readonly since: string
  readonly explicit: string
  readonly auto: string
  readonly offer: string
}

/** The calls of a function or view; or the word `helper` with who calls it; or why it touches no rows. */
export type Entry =
  { readonly calls: readonly Call[] } | { readonly helperOf: string } | { readonly noRows: string }

export async function openWorld(database: TestDatabase): Promise<World> {
  const subscribe = async (ack: string, offer: number | null) =>
    (await database.value(`select id from pullgate.subscribe(array['work'], null, $1, 60, null, $2)`, [
      ack,
      offer,
    ])) as string
  await database.query(`insert into pullgate.lane (id, topic_id, topic, priority)
    select pullgate.digest('work/0') & ~1::bigint, pullgate.topic_id('work'), 'work', 0`)
  return {
    database,
    since: '0',
    explicit: await subscribe('explicit', null),
    auto: await subscribe('auto', null),
    offer: await subscribe('explicit', 30),
  }
}

export async function besideCrowd(world: World): Promise<World> {
  return { ...world, since: String(await world.database.value(`select nextval('pullgate.job_id_seq')`)) }
}

const times = <Value>(count: number, value: Value): Value[] => Array<Value>(count).fill(value)
const soon: Columns = { claimed_at: `clock_timestamp() - interval '10 seconds'` }
const past = `clock_timestamp() - interval '1 second'`

type Make = (world: World, count: number) => Promise<Jobs>
const jobs =
  (state: State, columns: Columns | ((world: World) => Columns) = {}): Make =>
  (world, count) =>
    insertJobs(world.database, count, state, typeof columns === 'function' ? columns(world) : columns)
const running = jobs('running', ({ explicit }) => ({ ...soon, subscription_id: `'${explicit}'` }))
const offered = jobs('offered', ({ offer }) => ({ ...soon, subscription_id: `'${offer}'` }))
const unconfirmed = jobs('unconfirmed', ({ auto }) => ({ ...soon, subscription_id: `'${auto}'` }))
const finished =
  (state: string): Make =>
  ({ database }, count) =>
    insertHistory(database, count, state)

/** A call whose first parameters are ids and leases, others repeated for each. */
const byLease = (what: string, name: string, types: string[], make: Make, ...rest: unknown[]): Call => ({
  what,
  sql: `select * from pullgate.${name}($1::bigint[], $2::uuid[]${types.map((type, n) => `, $${n + 3}::${type}[]`).join('')})`,
  async prepare(world, count) {
    const { ids, leases } = await make(world, count)
    return [ids, leases, ...rest.map((value) => times(count, value))]
  },
})
const stale =
  (make: Make): Make =>
  async (world, count) => ({ ...(await make(world, count)), leases: times(count, randomUUID()) })

const settles: Record<string, Entry> = {
  settle_completes: {
    calls: [
      byLease('of running jobs', 'settle_completes', ['text'], running, '1'),
      byLease('of offered jobs', 'settle_completes', ['text'], offered, '1'),
      byLease('with stale leases', 'settle_completes', ['text'], stale(running), '1'),
      byLease('told before', 'settle_completes', ['text'], finished('succeeded'), '1'),
      byLease(
        'of delivered jobs',
        'settle_completes',
        ['text'],
        async (world, count) => ({
          ...(await finished('delivered')(world, count)),
          leases: times(count, null as unknown as string),
        }),
        '1',
      ),
    ],
  },
  settle_fails: {
    calls: [
      byLease('for good', 'settle_fails', ['text', 'boolean', 'float8'], running, 'x', false, null),
      byLease('again at once', 'settle_fails', ['text', 'boolean', 'float8'], running, 'x', true, 0),
      byLease('again later', 'settle_fails', ['text', 'boolean', 'float8'], running, 'x', true, 3600),
    ],
  },
  settle_releases: {
    calls: [
      byLease('at once', 'settle_releases', ['float8'], running, 0),
      byLease('for later', 'settle_releases', ['float8'], running, 3600),
    ],
  },
  heartbeats: {
    calls: [
      byLease(
        'of running jobs',
        'heartbeats',
        ['integer', 'text'],
        jobs('running', ({ explicit }) => ({
          ...soon,
          subscription_id: `'${explicit}'`,
          lease_check_at: `clock_timestamp() + interval '1 minute'`,
        })),
        120,
        'half',
      ),
      byLease('that accept offers', 'heartbeats', ['integer', 'text'], offered, 50_000, null),
      byLease('with stale leases', 'heartbeats', ['integer', 'text'], stale(running), null, null),
    ],
  },
  confirm: {
    calls: [
      byLease('without keys', 'confirm', [], unconfirmed),
      byLease(
        'with dedupe keys',
        'confirm',
        [],
        jobs('unconfirmed', { dedupe_key: `gen_random_uuid()::text` }),
      ),
    ],
  },
  give_back: { calls: [byLease('of running jobs', 'give_back', [], running)] },
  doubt: {
    calls: [
      byLease('that go back', 'doubt', [], running),
      byLease('that on_lost decides', 'doubt', [], jobs('unconfirmed', { on_lost: `'fail'` })),
    ],
  },
  refresh_claims: { calls: [byLease('of unconfirmed jobs', 'refresh_claims', [], unconfirmed)] },
}

const slots = (count: number, per: number) => Math.ceil(count / per)
/** Topics of their own with a job each. */
async function separateTopics({ database }: World, count: number): Promise<string[]> {
  const made = await database.query<{ id: string }>(
    `with t as (select 'one' || gen_random_uuid() as name from generate_series(1, $1)),
      l as (
        insert into pullgate.lane (id, topic_id, topic, priority)
          select pullgate.digest(t.name || '/0') & ~1::bigint, pullgate.topic_id(t.name), t.name, 0 from t
          returning id, topic_id),
      j as (
        insert into pullgate.job (lane_id, topic_id, state, announced, job_spec) select l.id, l.topic_id, 'ready', true, '1' from l)
      select l.topic_id::text as id from l`,
    [count],
  )
  return made.map(({ id }) => id)
}
const claimSql = 'pullgate.claim($1::bigint[], $2::uuid[], $3::integer[], $4::bigint[], $5::bigint[])'
const work = `array[pullgate.topic_id('work')]`

const claims: Record<string, Entry> = {
  claim: {
    calls: [
      {
        what: 'of one topic, one slot',
        sql: `select * from pullgate.claim(${work}, array[$1::uuid], array[$2::integer], '{}', '{}')`,
        async prepare(world, count) {
          await insertJobs(world.database, count, 'ready')
          return [world.explicit, count]
        },
      },
      {
        what: 'of one topic, a slot per job, with keys',
        sql: `select * from pullgate.claim(array_fill(pullgate.topic_id('work'), array[cardinality($1::uuid[])]), $1, $2::integer[],
          '{}', '{}', 1, 1, $3::uuid[])`,
        async prepare(world, count) {
          await insertJobs(world.database, count, 'ready')
          return [times(count, world.offer), times(count, 1), times(count, null).map(() => randomUUID())]
        },
      },
      {
        what: 'of several topics',
        sql: `select * from ${claimSql}`,
        async prepare(world, count) {
          const topics = await separateTopics(world, count)
          return [topics, times(count, world.auto), times(count, 1), [], []]
        },
      },
      {
        what: 'of empty topics',
        sql: `select * from ${claimSql}`,
        prepare: ({ explicit }, count) => [
          times(count, null).map((_, n) => String(n)),
          ...[times(count, explicit), times(count, 1), [], []],
        ],
      },
    ],
  },
  claim_due: {
    calls: [
      {
        what: 'of jobs that have fallen due',
        sql: `select * from pullgate.claim_due(100, null, ${work}, array[$1::uuid], array[$2::integer], '{}', '{}')`,
        async prepare(world, count) {
          await insertJobs(world.database, count, 'scheduled', { due_at: past })
          return [world.explicit, count]
        },
      },
    ],
  },
  give_again: {
    calls: [
      {
        what: 'of jobs held by key',
        sql: `select * from pullgate.give_again($1::uuid[], $2::integer[])`,
        async prepare({ database, explicit }, count) {
          const keys = times(slots(count, 5), null).map(() => randomUUID())
          for (const key of keys) {
            await insertJobs(database, Math.min(count, 5), 'running', {
              ...soon,
              pull_key: `'${key}'`,
              subscription_id: `'${explicit}'`,
            })
          }
          return [keys, times(keys.length, 5)]
        },
      },
    ],
  },
  give_back_unheard: {
    calls: [
      {
        what: 'of claims of the last minute',
        sql: `select pullgate.give_back_unheard($1::bigint[], array[$2::uuid], 60)`,
        async prepare({ database, explicit }, count) {
          await insertJobs(database, count, 'running', {
            claim_id: '777',
            claimed_at: 'clock_timestamp()',
            lease_check_at: `clock_timestamp() + interval '60 seconds'`,
            subscription_id: `'${explicit}'`,
          })
          return [['777', '778'], explicit]
        },
      },
    ],
  },
}

const dueCall = (what: string, state: State, columns: Columns): Call => ({
  what,
  sql: 'select * from pullgate.run_due($1, null)',
  async prepare({ database }, count) {
    await insertJobs(database, count, state, columns)
    return [count]
  },
})
const over: Columns = { lease_ends_at: past, lease_check_at: past }

const time: Record<string, Entry> = {
  run_due: {
    calls: [
      dueCall('that makes jobs ready', 'scheduled', { due_at: past }),
      dueCall('that ends leases', 'running', over),
      dueCall('that ends leases for good', 'running', { ...over, on_lost: `'fail'` }),
      dueCall('that ends offers', 'offered', over),
      dueCall('that looks at renewed leases', 'running', { lease_check_at: past }),
      dueCall('that ends the wait for outcomes', 'delivered', { lease_check_at: past }),
      dueCall('that expires jobs', 'ready', { expires_at: past }),
    ],
  },
  look: {
    calls: [
      {
        what: 'at topics with jobs',
        sql: `select * from pullgate.look($1::bigint[], '{}', '{}', null, 0, true, false)`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
      {
        what: 'at topics without jobs',
        sql: `select * from pullgate.look($1::bigint[], '{}', '{}', null, 0, true, false)`,
        prepare: (_, count) => [times(count, null).map((_, n) => String(n))],
      },
    ],
  },
  upkeep: {
    calls: [
      {
        what: 'with idle subscriptions',
        sql: 'select pullgate.upkeep()',
        readsAll: 'all subscriptions and all held jobs, once a minute',
        async prepare({ database }, count) {
          await database.query(
            `insert into pullgate.subscription (topics, ack, lease_seconds, created_at)
              select '{work}', 'explicit', 60, now() - interval '100 days' from generate_series(1, $1)`,
            [count],
          )
          return []
        },
      },
    ],
  },
  advance_marks: {
    calls: [
      {
        what: 'of topics with jobs',
        sql: `select * from pullgate.advance_marks($1::bigint[], '{}', '{}', null, 0, pg_current_xact_id(), now(), '{}')`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
    ],
  },
  reseat: {
    calls: [
      {
        what: 'of ready jobs',
        sql: `select * from pullgate.reseat(array[pullgate.digest('late/0') & ~1::bigint], array[9e15::bigint], 0, $1)`,
        async prepare({ database }, count) {
          await insertJobs(database, count, 'ready', { topic: `'late'` })
          return [count]
        },
      },
    ],
  },
}

const ofGateway = async ({ database }: World, count: number, state: State): Promise<string> => {
  const id = String(
    await database.value(
      'insert into pullgate.gateway (id) select 1 + max(id) from pullgate.gateway returning id',
    ),
  )
  const claimed_at = `clock_timestamp() - interval '30 seconds'`
  await insertJobs(database, count, state, { gateway_id: id, claimed_at })
  return id
}
const gateways: Record<string, Entry> = {
  join_gateway: { calls: [{ what: '', sql: 'select pullgate.join_gateway()', prepare: () => [] }] },
  bury: {
    calls: (['unconfirmed', 'offered'] as const).map((state) => ({
      what: `of a gateway with ${state} jobs`,
      sql: 'select pullgate.bury(array[$1::integer])',
      prepare: async (world: World, count: number) => [await ofGateway(world, count, state)],
    })),
  },
  retire: {
    calls: [
      {
        what: 'that gives back',
        sql: `select pullgate.retire(array[$1::integer], 0, '{}', '{}')`,
        prepare: async (world, count) => [await ofGateway(world, count, 'unconfirmed')],
      },
      {
        what: 'that keeps offers',
        sql: `select pullgate.retire(array[$1::integer], 1, '{}', '{}')`,
        prepare: async (world, count) => [await ofGateway(world, count, 'offered')],
      },
    ],
  },
  arm: {
    calls: [
      {
        what: 'of new topics',
        sql: 'select pullgate.arm($1::uuid, $2::bigint[])',
        prepare: (_, count) => [randomUUID(), times(count, null).map((_, n) => String(n))],
      },
      {
        what: 'of topics armed before',
        sql: 'select pullgate.arm($1::uuid, $2::bigint[])',
        prepare: async ({ database }, count) => armedTopics(database, count),
      },
    ],
  },
  disarm: {
    calls: [
      {
        what: 'of armed topics',
        sql: 'select pullgate.disarm($1::uuid, $2::bigint[])',
        prepare: ({ database }, count) => armedTopics(database, count),
      },
    ],
  },
}
async function armedTopics(database: TestDatabase, count: number): Promise<Prepared> {
  const gateway = randomUUID()
  const topics = times(count, null).map((_, n) => String(n))
  await database.query(
    `insert into pullgate.armed (gateway_id, topic_id, until)
      select $1, unnest($2::bigint[]), clock_timestamp() + interval '20 seconds'`,
    [gateway, topics],
  )
  return [gateway, topics]
}

/** By job id, so for one job at a time: a batch is so many calls. */
const byId = (what: string, name: string, rest: string, make: Make): Call => ({
  what,
  sql: `select pullgate.${name}(e.id${rest}) from unnest($1::bigint[]) as e (id)`,
  prepare: async (world, count) => [(await make(world, count)).ids],
})
const outcomes: Record<string, Entry> = {
  complete: {
    calls: [
      byId('a running job', 'complete', `, '1'`, running),
      byId('a delivered job', 'complete', `, '1'`, finished('delivered')),
      byId('a job that succeeded', 'complete', `, '1'`, finished('succeeded')),
    ],
  },
  fail: { calls: [byId('a ready job', 'fail', `, 'x'`, jobs('ready'))] },
  cancel: {
    calls: [
      byId('a scheduled job', 'cancel', '', jobs('scheduled')),
      byId('a running job', 'cancel', '', running),
    ],
  },
  retry: {
    calls: [
      byId('a failed job', 'retry', '', finished('failed')),
      byId('an orphaned job', 'retry', '', jobs('orphaned')),
    ],
  },
  read_job: {
    calls: [
      byId('a live job', 'read_job', '', running),
      byId('a finished job', 'read_job', '', finished('succeeded')),
    ],
  },
}

const publishing: Record<string, Entry> = {
  publish: {
    calls: [
      {
        what: 'as text',
        sql: `select pullgate.publish('work', '{}') from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'as jsonb, later',
        sql: `select pullgate.publish('work', '{}'::jsonb, delay => interval '5 hours') from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with a new key',
        sql: `select pullgate.publish('work', '{}', dedupe_key => gen_random_uuid()::text) from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with a key that is taken',
        sql: `select pullgate.publish('work', '{}', dedupe_key => k) from unnest($1::text[]) k`,
        async prepare({ database }, count) {
          const key = randomUUID()
          await insertJobs(database, 1, 'ready', { dedupe_key: `'${key}'` })
          return [times(count, key)]
        },
      },
      {
        what: 'to a new topic',
        sql: `select pullgate.publish('new' || gen_random_uuid(), '{}') from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
    ],
  },
  publish_many: {
    calls: [
      {
        what: 'as text',
        sql: `select pullgate.publish_many('work', $1::text[])`,
        prepare: (_, count) => [times(count, '{}')],
      },
      {
        what: 'as jsonb, with keys',
        sql: `select pullgate.publish_many('work', $1::jsonb[], dedupe_keys => $2::text[])`,
        prepare: (_, count) => [times(count, '{}'), times(count, null).map(() => randomUUID())],
      },
    ],
  },
  inbox: {
    calls: [
      {
        what: 'takes rows',
        sql: `insert into pullgate.inbox (topic, job_spec) select 'work', '{}' from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
    ],
  },
}

const subscriptions: Record<string, Entry> = {
  subscribe: {
    calls: [
      {
        what: 'without a name',
        sql: `select pullgate.subscribe(array['work'], null, 'explicit', 60, null) from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with the name of a live one',
        sql: `select pullgate.subscribe(array['work'], $2, 'explicit', 60, null) from generate_series(1, $1)`,
        async prepare({ database }, count) {
          const name = randomUUID()
          await database.query(`select pullgate.subscribe(array['work'], $1, 'explicit', 60, null)`, [name])
          return [count, name]
        },
      },
    ],
  },
  unsubscribe: {
    calls: [
      {
        what: 'that releases jobs',
        sql: 'select pullgate.unsubscribe($1, true)',
        readsAll: 'the held jobs of all subscriptions, by job_lease_check',
        async prepare({ database }, count) {
          const id = (await database.value(
            `select id from pullgate.subscribe(array['work'], null, 'explicit', 60, null)`,
          )) as string
          await insertJobs(database, count, 'running', { subscription_id: `'${id}'` })
          return [id]
        },
      },
    ],
  },
  read_subscriptions: {
    calls: [
      {
        what: 'of one',
        sql: 'select * from pullgate.read_subscriptions($1)',
        readsAll: 'the held jobs of all subscriptions, by job_lease_check',
        prepare: ({ explicit }) => [explicit],
      },
      {
        what: 'of all',
        sql: 'select * from pullgate.read_subscriptions()',
        readsAll: 'all subscriptions and all held jobs',
        prepare: () => [],
      },
    ],
  },
  touch_subscriptions: {
    calls: [
      {
        what: 'that were not touched lately',
        sql: 'select pullgate.touch_subscriptions($1::uuid[])',
        async prepare({ database }, count) {
          const made = await database.query<{ id: string }>(
            `insert into pullgate.subscription (topics, ack, lease_seconds)
              select '{work}', 'explicit', 60 from generate_series(1, $1) returning id`,
            [count],
          )
          return [made.map(({ id }) => id)]
        },
      },
    ],
  },
}

const readings: Record<string, Entry> = {
  read_topics: {
    calls: [
      {
        what: 'of one',
        sql: `select t.* from unnest($1::bigint[]) n (id), pullgate.read_topics(n.id) t`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
      {
        what: 'of all',
        sql: 'select * from pullgate.read_topics()',
        prepare: () => [],
        readsAll: 'all topics',
      },
    ],
  },
  count_jobs: {
    calls: [
      {
        what: 'of one topic',
        sql: `select * from pullgate.count_jobs(pullgate.topic_id('work'))`,
        prepare: () => [],
        readsAll: 'the scheduled and the held jobs of all topics',
      },
      {
        what: 'of all',
        sql: 'select * from pullgate.count_jobs()',
        prepare: () => [],
        readsAll: 'all live jobs',
      },
    ],
  },
  snapshot_jobs: {
    calls: [
      {
        what: 'that counts',
        sql: 'select * from pullgate.snapshot_jobs(0)',
        prepare: () => [],
        readsAll: 'all live jobs',
      },
      {
        what: 'that was counted',
        sql: 'select * from pullgate.snapshot_jobs(3600)',
        prepare: () => [],
      },
    ],
  },
  jobs: {
    calls: [
      {
        what: 'by id',
        isView: true,
        sql: 'select v.* from unnest($1::bigint[]) e (id), lateral (select * from pullgate.jobs j where j.id = e.id offset 0) v',
        prepare: async (world, count) => [(await running(world, count)).ids],
      },
      {
        what: 'by topic',
        isView: true,
        sql: `select count(*) from pullgate.jobs where topic = 'work'`,
        prepare: () => [],
        readsAll: 'all jobs, live and finished',
      },
    ],
  },
  topics: {
    calls: [
      {
        what: 'by name',
        isView: true,
        sql: `select * from pullgate.topics where topic = 'work'`,
        prepare: () => [],
        readsAll: 'all live jobs',
      },
    ],
  },
  configure_topic: {
    calls: [
      {
        what: 'of topics that exist',
        sql: `select pullgate.configure_topic(n.name, false) from unnest($1::text[]) n (name)`,
        async prepare({ database }, count) {
          const made = await database.query<{ name: string }>(
            `insert into pullgate.topic (id, name)
              select pullgate.topic_id(t.name), t.name
                from (select 'set' || gen_random_uuid() as name from generate_series(1, $1)) t
              returning name`,
            [count],
          )
          return [made.map(({ name }) => name)]
        },
      },
    ],
  },
  configure: { calls: [{ what: '', sql: 'select * from pullgate.configure()', prepare: () => [] }] },
}

const helperOf = (caller: string, ...names: string[]): Record<string, Entry> =>
  Object.fromEntries(names.map((name) => [name, { helperOf: caller }]))
const noRows = (why: string, ...names: string[]): Record<string, Entry> =>
  Object.fromEntries(names.map((name) => [name, { noRows: why }]))

export const entries: Record<string, Entry> = {
  ...{
    ...publishing,
    ...claims,
    ...settles,
    ...time,
    ...gateways,
    ...outcomes,
    ...subscriptions,
    ...readings,
  },
  ...helperOf('publish', 'use_lane', 'announce_topic', 'notify'),
  ...helperOf('inbox', 'inbox_insert'),
  ...helperOf('give_back', 'undo_claim', 'lock_claims', 'job_wakes'),
  ...helperOf('settle_completes', 'lock_jobs', 'lock_job', 'finish_all', 'settle_complete'),
  ...helperOf('settle_fails', 'settle_fail', 'finish', 'come_back'),
  ...helperOf('settle_releases', 'settle_release'),
  ...helperOf('heartbeats', 'heartbeat'),
  ...helperOf('run_due', 'lose', 'withdraw', 'next_due'),
  ...helperOf('bury', 'lock_unconfirmed', 'forget_gateways'),
  ...helperOf('give_back_unheard', 'first_holds'),
  ...helperOf('look', 'ready_topics'),
  ...helperOf('complete', 'conclude', 'lock_known_job', 'tell'),
  ...helperOf('claim', 'lane_twin'),
  ...noRows(
    'a value of its arguments',
    'deliveries_max',
    'one_more',
    'logged',
    'refusal',
    'mark_of',
    'digest',
    'topic_id',
  ),
  ...noRows('a value of its arguments', 'day_slot', 'is_json', 'due_instant'),
  ...noRows(
    'a check of its arguments',
    'check_options',
    'check_text_options',
    'check_job_spec',
    'check_topic_name',
  ),
  ...noRows('an error', 'already_ended'),
  ...noRows('a notification', 'wake'),
  ...noRows('a lock', 'is_unlocked'),
  ...noRows('the row that it was called for', 'job_becomes_ready'),
}

export const calls: readonly (Call & { readonly name: string })[] = Object.entries(entries).flatMap(
  ([name, entry]) =>
    'calls' in entry ? entry.calls.map((call) => ({ ...call, name: `${name} ${call.what}`.trim() })) : [],
)
