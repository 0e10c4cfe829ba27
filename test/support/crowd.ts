import type { TestDatabase } from './database.ts'

/** A database of many rows of every kind, beside which one batch of jobs is worked on. */

/** SQL expressions by column; `n` is the row's number. */
export type Columns = Record<string, string>

export type Jobs = { readonly ids: string[]; readonly leases: string[] }

const crowdSize = 12_000
const topics = 6_000

const crowdTopic = `'crowd' || n % ${topics}`
const lane = (topic: string) => `pullgate.digest(${topic} || '/0') & ~1::bigint`
const held: Columns = {
  lease: 'gen_random_uuid()',
  attempts: '1',
  deliveries: '1',
  claimed_at: `clock_timestamp() - interval '10 minutes'`,
  lease_ends_at: `clock_timestamp() + interval '5 hours' + n * interval '1 second'`,
  lease_check_at: `clock_timestamp() + interval '5 hours' + n * interval '1 second'`,
  gateway_id: 'n % 50 + 1',
  claim_id: 'n',
}

/** What each of `states` has besides its place and spec. None of it is due within hours. */
export const states = {
  ready: {},
  scheduled: { due_at: `clock_timestamp() + interval '5 hours' + n * interval '1 second'` },
  running: held,
  unconfirmed: { ...held, state: `'running'`, auto_ack: 'true' },
  offered: { ...held, attempts: '0', unaccepted: '1' },
  delivered: {
    ...held,
    auto_ack: 'true',
    lease_ends_at: 'null',
    lease_check_at: `clock_timestamp() + interval '1 day'`,
  },
  orphaned: { ...held, lease_check_at: 'null' },
} satisfies Record<string, Columns>

export type State = keyof typeof states

/** Jobs straight into the table, so that preparing a measurement depends on no statement that it measures. */
export async function insertJobs(
  database: TestDatabase,
  count: number,
  state: State,
  { topic = `'work'`, ...columns }: Columns = {},
): Promise<Jobs> {
  const all: Columns = {
    lane_id: lane(topic),
    topic_id: `pullgate.topic_id(${topic})`,
    announced: 'true',
    state: `'${state}'`,
    job_spec: `'{"command": "plan", "n": ' || n || '}'`,
    ...states[state],
    ...columns,
  }
  const rows = await database.query<{ id: string; lease: string }>(
    `insert into pullgate.job (${Object.keys(all).join(', ')})
      select ${Object.values(all).join(', ')} from generate_series(1, ${count}) n returning id::text, lease`,
  )
  return { ids: rows.map(({ id }) => id), leases: rows.map(({ lease }) => lease) }
}

/** Straight into history, finished today. */
export async function insertHistory(
  database: TestDatabase,
  count: number,
  state: string,
  topic = `'work'`,
): Promise<Jobs> {
  const rows = await database.query<{ id: string; lease: string }>(
    `insert into pullgate.history (
        id, day_slot, lane_id, topic_id, due_at, created_at, finished_at, lease, priority, attempts, max_attempts,
        deliveries, auto_ack, state, on_lost, settled, log, job_spec)
      select nextval('pullgate.job_id_seq'), pullgate.day_slot(clock_timestamp()), ${lane(topic)}, pullgate.topic_id(${topic}),
          now(), now(), clock_timestamp(), gen_random_uuid(), 0, 1, 5, 1, $1 = 'delivered', $1, 'requeue',
          case $1 when 'succeeded' then 'complete' end, '[]', '{}'
        from generate_series(1, ${count}) n returning id::text, lease`,
    [state],
  )
  return { ids: rows.map(({ id }) => id), leases: rows.map(({ lease }) => lease) }
}

/** `rows` of every kind of job, and of topics, lanes, subscriptions, armed topics, gateways and history as many as fit. */
export async function fillCrowd(database: TestDatabase, rows = crowdSize): Promise<void> {
  const some = Math.min(rows, topics)
  await database.query(
    `insert into pullgate.lane (id, topic_id, topic, priority)
      select ${lane(crowdTopic)}, pullgate.topic_id(${crowdTopic}), ${crowdTopic}, 0 from generate_series(1, ${some}) n`,
  )
  await database.query(
    `insert into pullgate.topic (id, name)
      select pullgate.topic_id(${crowdTopic}), ${crowdTopic} from generate_series(1, ${some}) n`,
  )
  await database.query(
    `insert into pullgate.subscription (topics, ack, lease_seconds, last_pull_at)
      select array[${crowdTopic}], 'explicit', 60, clock_timestamp() from generate_series(1, ${some}) n`,
  )
  await database.query(
    `insert into pullgate.armed (topic_id, gateway_id, until)
      select pullgate.topic_id(${crowdTopic}), gen_random_uuid(), clock_timestamp() + interval '1 hour'
        from generate_series(1, ${some}) n`,
  )
  await database.query(
    `insert into pullgate.publish_key (key, request, created_at)
      select gen_random_uuid(), gen_random_uuid(), clock_timestamp() from generate_series(1, ${rows}) n`,
  )
  // More than there ever are, so that reading them all shows.
  await database.query(`insert into pullgate.gateway (id) select 1000 + n from generate_series(1, ${rows}) n`)
  const share = (part: number) => Math.ceil(rows * part)
  const topic = crowdTopic
  await insertJobs(database, share(0.35), 'ready', { topic, dedupe_key: `'key' || n` })
  await insertJobs(database, share(0.1), 'ready', {
    topic,
    expires_at: `now() + interval '5 hours' + n * interval '1 second'`,
  })
  await insertJobs(database, share(0.15), 'scheduled', { topic })
  await insertJobs(database, share(0.2), 'running', {
    topic,
    pull_key: 'gen_random_uuid()',
    subscription_id: 'gen_random_uuid()',
  })
  await insertJobs(database, share(0.05), 'unconfirmed', { topic })
  await insertJobs(database, share(0.05), 'offered', { topic })
  await insertJobs(database, share(0.05), 'delivered', { topic, dedupe_key: `'held' || n` })
  await insertJobs(database, share(0.05), 'orphaned', { topic })
  for (const state of ['succeeded', 'failed']) await insertHistory(database, share(0.2), state, topic)
}

/** The tables of the schema, partitions too. */
export async function tables(database: TestDatabase): Promise<string[]> {
  const found = await database.query<{ name: string }>(
    `select c.oid::regclass::text as name from pg_class c
      where c.relnamespace = 'pullgate'::regnamespace and c.relkind = 'r'
        and c.relname not in ('migration', 'function_file', 'setting', 'snapshot')`,
  )
  return found.map(({ name }) => name)
}
