import pg from 'pg'
import type { TestDatabase } from '../support/database.ts'

/** Short names for the calls that the tests in this directory make. A runner is a session or the file's database. */
export type Runner = TestDatabase | pg.Client

export async function rows<Row extends pg.QueryResultRow = Record<string, unknown>>(
  runner: Runner,
  sql: string,
  values: unknown[] = [],
): Promise<Row[]> {
  return runner instanceof pg.Client
    ? (await runner.query<Row>(sql, values)).rows
    : runner.query<Row>(sql, values)
}

export async function row<Row extends pg.QueryResultRow = Record<string, unknown>>(
  runner: Runner,
  sql: string,
  values: unknown[] = [],
): Promise<Row> {
  const [first] = await rows<Row>(runner, sql, values)
  if (first === undefined) throw new Error(`no row: ${sql}`)
  return first
}

export async function value<T = string>(runner: Runner, sql: string, values: unknown[] = []): Promise<T> {
  return Object.values(await row(runner, sql, values))[0] as T
}

export type PublishOptions = {
  spec?: string
  priority?: number
  run_at?: string
  delay?: string
  dedupe_key?: string
  max_attempts?: number
  on_lost?: string
  expires_at?: string
  traceparent?: string
}

export async function publish(runner: Runner, topic: string, options: PublishOptions = {}): Promise<string> {
  const { spec = '{}', ...named } = options
  const keys = Object.keys(named)
  const list = keys.map((key, index) => `, ${key} => $${index + 3}`).join('')
  return value(runner, `select pullgate.publish($1, $2::text${list})`, [topic, spec, ...Object.values(named)])
}

export type SubscribeOptions = {
  name?: string
  ack?: 'auto' | 'explicit'
  lease?: number
  maxParked?: number
  /** Two-phase delivery: claims only offer. */
  offer?: number
}

export async function subscribe(
  runner: Runner,
  topics: string | string[],
  { name, ack = 'explicit', lease = 60, maxParked, offer }: SubscribeOptions = {},
): Promise<string> {
  const list = typeof topics === 'string' ? [topics] : topics
  return value(runner, 'select id from pullgate.subscribe($1, $2, $3, $4, $5, $6)', [
    list,
    name,
    ack,
    lease,
    maxParked,
    offer,
  ])
}

export type Claimed = {
  slot: number
  id: string | null
  lease: string
  lease_seconds: number
  lease_ends_at: Date
  attempt: number
  redelivered: boolean
  published_at: Date
  ready_seconds: number
  traceparent: string | null
  job_spec: string
}

/** Claims for slots of [subscription, count]; without the notes that ready jobs were left. */
export async function claimSlots(
  runner: Runner,
  topic: string,
  slots: [string, number][],
): Promise<Claimed[]> {
  return rows<Claimed>(
    runner,
    `select * from pullgate.claim(array_fill(pullgate.topic_id($1), array[cardinality($2::uuid[])]), $2, $3::integer[],
      '{}', '{}') where note is distinct from 'left'`,
    [topic, slots.map(([id]) => id), slots.map(([, count]) => count)],
  )
}

export async function claim(
  runner: Runner,
  topic: string,
  subscription: string,
  count = 1,
): Promise<Claimed[]> {
  return claimSlots(runner, topic, [[subscription, count]])
}

export type Held = { id: string; lease: string }

export async function claimOne(runner: Runner, topic: string, subscription: string): Promise<Claimed & Held> {
  const [job] = await claim(runner, topic, subscription)
  if (job === undefined || job.id === null) throw new Error('nothing to claim')
  return { ...job, id: job.id }
}

/** A fresh topic's job, claimed; with `offer` it is offered. */
export async function runningJob(
  runner: Runner,
  topic: string,
  options: PublishOptions & SubscribeOptions = {},
): Promise<Claimed & Held> {
  const { name, ack, lease, maxParked, offer, ...publishOptions } = options
  const subscribeOptions = Object.entries({ name, ack, lease, maxParked, offer }).filter(
    ([, set]) => set !== undefined,
  )
  const subscription = await subscribe(runner, topic, Object.fromEntries(subscribeOptions))
  await publish(runner, topic, publishOptions)
  return claimOne(runner, topic, subscription)
}

/** A job's row, live or finished, with `live` in it. */
export async function readJob(runner: Runner, id: string): Promise<Record<string, unknown>> {
  return row(
    runner,
    `select coalesce(to_jsonb(j), to_jsonb(h)) || jsonb_build_object('live', j.id is not null) as job
      from (select $1::bigint as id) i
      left join pullgate.job j on j.id = i.id
      left join pullgate.history h on h.id = i.id`,
    [id],
  ).then((found) => (found['job'] ?? {}) as Record<string, unknown>)
}

export async function stateOf(runner: Runner, id: string): Promise<unknown> {
  return (await readJob(runner, id))['state']
}

type Answer = { status: string; state?: string; due_at?: Date; lease_ends_at?: Date; cancel_reason?: string }

export async function complete(runner: Runner, { id, lease }: NullableLease, result = '1'): Promise<Answer> {
  return row<Answer>(
    runner,
    'select * from pullgate.settle_completes(array[$1::bigint], array[$2::uuid], array[$3])',
    [id, lease, result],
  )
}

type NullableLease = { id: string; lease: string | null }

export async function fail(
  runner: Runner,
  { id, lease }: NullableLease,
  { retry = true, after }: { retry?: boolean; after?: number } = {},
): Promise<Answer> {
  return row<Answer>(
    runner,
    `select * from pullgate.settle_fails(array[$1::bigint], array[$2::uuid], '{broke}', array[$3::boolean], array[$4::float8])`,
    [id, lease, retry, after],
  )
}

export async function release(runner: Runner, { id, lease }: NullableLease, delay?: number): Promise<Answer> {
  return row<Answer>(
    runner,
    'select * from pullgate.settle_releases(array[$1::bigint], array[$2::uuid], array[$3::float8])',
    [id, lease, delay],
  )
}

export async function heartbeat(
  runner: Runner,
  { id, lease }: NullableLease,
  seconds?: number,
  progress?: string,
): Promise<Answer> {
  return row<Answer>(
    runner,
    'select * from pullgate.heartbeats(array[$1::bigint], array[$2::uuid], array[$3::integer], array[$4])',
    [id, lease, seconds, progress],
  )
}

export async function byLease(
  runner: Runner,
  verb: 'give_back' | 'confirm' | 'doubt',
  held: Held[],
): Promise<number> {
  const ids = held.map((job) => job.id)
  return value<number>(runner, `select pullgate.${verb}($1::bigint[], $2::uuid[])`, [
    ids,
    held.map((job) => job.lease),
  ])
}

export type Due = {
  topics: string[]
  promoted: number
  leases_lost: object
  offers_ended: object
  expired: number
  more: boolean
  stuck: number
}

export async function runDue(runner: Runner, limit = 1000): Promise<Due> {
  return row<Due>(runner, 'select * from pullgate.run_due($1, null)', [limit])
}

/** The jobs claimed, the slots noted, and run_due's result. */
export async function claimDue(
  runner: Runner,
  topic: string,
  subscription: string,
  { limit = 1000, count = 1 }: { limit?: number; count?: number } = {},
): Promise<{ jobs: Claimed[]; notes: string[]; due: Due & { leases_checked: number; waited_ms: number } }> {
  const found = await rows<Claimed & { note: string | null }>(
    runner,
    `select * from pullgate.claim_due($1, null, array[pullgate.topic_id($2)], array[$3::uuid], array[$4::integer],
      '{}', '{}')`,
    [limit, topic, subscription, count],
  )
  const due = found.filter(({ note }) => note === 'due')
  if (due.length !== 1) throw new Error(`${due.length} rows with the note due`)
  return {
    jobs: found.filter(({ note }) => note === null),
    notes: found.flatMap(({ note }) => (note === null || note === 'due' ? [] : [note])),
    due: JSON.parse(due[0]?.job_spec ?? '') as Due & { leases_checked: number; waited_ms: number },
  }
}

/** Lets the job's lease end, and be looked at, without waiting. */
export async function endLease(runner: Runner, id: string): Promise<void> {
  await rows(
    runner,
    `update pullgate.job set lease_ends_at = clock_timestamp() - interval '1 second',
      lease_check_at = clock_timestamp() - interval '1 second' where id = $1`,
    [id],
  )
}

/** Lets the time of an offer be over, and does what is due. */
export async function endOffer(runner: Runner, id: string): Promise<Due> {
  await endLease(runner, id)
  return runDue(runner)
}

export async function counts(runner: Runner, id: string): Promise<unknown[]> {
  const { state, attempts, deliveries } = await readJob(runner, id)
  return [state, attempts, deliveries]
}

/** Seconds until the hold ends, and until it is looked at, in steps of 5: a busy machine takes a while to ask. */
export function left(runner: Runner, id: string): Promise<Record<string, unknown>> {
  return row(
    runner,
    `select 5 * ceil(extract(epoch from lease_ends_at - clock_timestamp()) / 5)::int as ends,
      5 * ceil(extract(epoch from lease_check_at - clock_timestamp()) / 5)::int as looked from pullgate.job where id = $1`,
    [id],
  )
}

/** Moves the finished job's end into the past, and the row into that day's slot. */
export async function ageHistory(runner: Runner, id: string, days: number): Promise<void> {
  await rows(
    runner,
    `update pullgate.history h set finished_at = a.at, day_slot = pullgate.day_slot(a.at)
      from (select clock_timestamp() - make_interval(days => $2) as at) a where h.id = $1`,
    [id, days],
  )
}

/** The error with which the statement is refused. */
export async function refusal(
  runner: Runner,
  sql: string,
  values: unknown[] = [],
): Promise<pg.DatabaseError> {
  const outcome = await rows(runner, sql, values).then(
    () => 'no error',
    (error: unknown) => error,
  )
  if (!(outcome instanceof pg.DatabaseError))
    throw new Error(`expected a database error, got ${String(outcome)}`)
  return outcome
}
