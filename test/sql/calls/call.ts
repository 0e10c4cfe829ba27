import { randomUUID } from 'node:crypto'
import type { TestDatabase } from '../../support/database.ts'
import { insertHistory, insertJobs } from '../../support/crowd.ts'
import type { Columns, Jobs, State } from '../../support/crowd.ts'

/** How functions and views of the schema are called, for the tests of their plans. */

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

export const times = <Value>(count: number, value: Value): Value[] => Array<Value>(count).fill(value)
export const soon: Columns = { claimed_at: `clock_timestamp() - interval '10 seconds'` }
export const past = `clock_timestamp() - interval '1 second'`

export type Make = (world: World, count: number) => Promise<Jobs>
export const jobs =
  (state: State, columns: Columns | ((world: World) => Columns) = {}): Make =>
  (world, count) =>
    insertJobs(world.database, count, state, typeof columns === 'function' ? columns(world) : columns)
export const running = jobs('running', ({ explicit }) => ({ ...soon, subscription_id: `'${explicit}'` }))
export const offered = jobs('offered', ({ offer }) => ({ ...soon, subscription_id: `'${offer}'` }))
export const unconfirmed = jobs('unconfirmed', ({ auto }) => ({ ...soon, subscription_id: `'${auto}'` }))
export const finished =
  (state: string): Make =>
  ({ database }, count) =>
    insertHistory(database, count, state)

/** A call whose first parameters are ids and leases, others repeated for each. */
export const byLease = (
  what: string,
  name: string,
  types: string[],
  make: Make,
  ...rest: unknown[]
): Call => ({
  what,
  sql: `select * from pullgate.${name}($1::bigint[], $2::uuid[]${types.map((type, n) => `, $${n + 3}::${type}[]`).join('')})`,
  async prepare(world, count) {
    const { ids, leases } = await make(world, count)
    return [ids, leases, ...rest.map((value) => times(count, value))]
  },
})
export const stale =
  (make: Make): Make =>
  async (world, count) => ({ ...(await make(world, count)), leases: times(count, randomUUID()) })
/** A topic of its own: what earlier calls took from the head of a lane is dead, and may have to be walked. */
export async function ownTopic({ database }: World): Promise<string> {
  const name = `own${randomUUID()}`
  await database.query(
    `insert into pullgate.lane (id, topic_id, topic, priority)
      values (pullgate.digest($1::text || '/0') & ~1::bigint, pullgate.topic_id($1::text), $1::text, 0)`,
    [name],
  )
  return name
}

/** Topics of their own with a job each. */
export async function separateTopics({ database }: World, count: number): Promise<string[]> {
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
/** By job id, so for one job at a time: a batch is so many calls. */
export const byId = (what: string, name: string, rest: string, make: Make): Call => ({
  what,
  sql: `select pullgate.${name}(e.id${rest}) from unnest($1::bigint[]) as e (id)`,
  prepare: async (world, count) => [(await make(world, count)).ids],
})
