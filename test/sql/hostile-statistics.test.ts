import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { fillCrowd, tables } from '../support/crowd.ts'
import { useDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { calls, entries } from './calls.ts'
import { besideCrowd, openWorld } from './calls/call.ts'
import type { Call, World } from './calls/call.ts'

/**
 * No statement reads more because of what the statistics say. Every function and view of the schema is called beside a
 * crowd of rows of every kind, for one element and for a hundred, under statistics that are wrong in each of the ways that
 * occur, and compared with the same call under true ones. Buffers are counted, not time.
 */
type Buffers = ReadonlyMap<string, number>

/** Of a call that has to read all of something the size does not matter. */
const sizes = ({ readsAll }: Call) => (readsAll === undefined ? [1, 100] : [1])
const warmUps = ({ readsAll }: Call) => (readsAll === undefined ? [1, 2] : [1])

/**
 * Any table of the crowd has more than 60 pages: a call for one element shows if one is scanned, one for a hundred if it
 * is for each. Three for each element are for pages that split, or are asked for room. A view is planned in its reader's
 * session, where a probe of an index may take the place of a hash table. What reads all of something also meets dead rows
 * that a transaction elsewhere keeps; one scan too many for each row shows all the same.
 */
const allowed = ({ isView, readsAll }: Call, honest: number, size: number) =>
  (isView === true ? 10 : readsAll === undefined ? 1.25 : 2) * honest + 50 + 3 * size

async function buffersOf(session: pg.Client, world: World, call: Call, size: number): Promise<number> {
  // What earlier calls have left would be claimed, looked at and counted by this one.
  await world.database.query('delete from pullgate.job where id >= $1', [world.since])
  const values = await call.prepare(world, size)
  const { rows } = await session
    .query<{ 'QUERY PLAN': { Plan: Record<string, number> }[] }>(
      `explain (analyze, buffers, timing off, format json) ${call.sql}`,
      [...values],
    )
    .catch((error: unknown) => {
      // statement_timeout: so many that they were not counted to the end.
      if (error instanceof pg.DatabaseError && error.code === '57014') return { rows: [] }
      throw error
    })
  const plan = rows[0]?.['QUERY PLAN'][0]?.Plan
  return plan === undefined ? Infinity : (plan['Shared Hit Blocks'] ?? 0) + (plan['Shared Read Blocks'] ?? 0)
}

/** Makes the session plan every statement, as it finds the tables now. */
async function planAll(session: pg.Client, world: World): Promise<void> {
  for (const call of calls) for (const size of warmUps(call)) await buffersOf(session, world, call, size)
}

/**
 * Each call is made before it is counted: to plan it, and since index entries of dead rows are marked by the first who
 * meets them. They are not while an older transaction is open, be it in the database of another test, and other sessions can
 * make this one read the catalogue anew. So a call that reads more than is allowed is counted again, for 15 s at most: a bad
 * plan stays bad. True statistics are always counted three times.
 */
async function countAll(session: pg.Client, world: World, honest?: Buffers): Promise<Buffers> {
  const found = new Map<string, number>()
  for (const call of calls) {
    for (const size of warmUps(call)) await buffersOf(session, world, call, size)
    for (const size of sizes(call)) {
      const name = `${call.name}, ${size}`
      const enough = honest === undefined ? -1 : allowed(call, honest.get(name) ?? NaN, size)
      let [least, most] = [Infinity, 0]
      for (let tries = 0; tries < (honest === undefined ? 3 : 30) && !(least <= enough); tries += 1) {
        if (tries > 2) await setTimeout(500)
        if (tries > 2 && least === Infinity) break
        const buffers = await buffersOf(session, world, call, size)
        least = Math.min(least, buffers)
        most = Math.max(most, buffers)
      }
      // What is true may have waited for a transaction elsewhere to end, and read nothing: the most is what it takes.
      found.set(name, honest === undefined ? most : least)
    }
  }
  return found
}

async function onAllTables(database: TestDatabase, statement: (table: string) => string): Promise<void> {
  for (const table of await tables(database)) await database.query(statement(table))
}
const emptyAll = (database: TestDatabase) => onAllTables(database, (table) => `delete from ${table}`)

/** Statistics that are wrong once the crowd is there. Between them and the crowd nothing makes a session plan again. */
const hostile: Record<string, (database: TestDatabase) => Promise<unknown>> = {
  'analyzed while empty': async (database) => {
    await fillCrowd(database)
    await emptyAll(database)
    // Kept, the pages are what makes the planner believe that there are no rows, however many follow.
    await onAllTables(database, (table) => `vacuum (analyze, truncate off) ${table}`)
  },
  'analyzed full, then emptied and refilled': async (database) => {
    await fillCrowd(database)
    await onAllTables(database, (table) => `analyze ${table}`)
    await emptyAll(database)
  },
  'never analyzed': () => Promise.resolve(),
  'analyzed with one row': async (database) => {
    await fillCrowd(database, 1)
    await onAllTables(database, (table) => `vacuum analyze ${table}`)
    await emptyAll(database)
  },
}

const session = async (database: TestDatabase) => {
  const made = await database.session()
  await made.query(`set statement_timeout = '3s'`)
  return made
}
const withoutAutovacuum = (database: TestDatabase) =>
  onAllTables(database, (table) => `alter table ${table} set (autovacuum_enabled = off)`)

let honest: Buffers
let world: World
const honestly = useDatabase()
beforeAll(async () => {
  await withoutAutovacuum(honestly)
  await fillCrowd(honestly)
  world = await besideCrowd(await openWorld(honestly))
  await honestly.query('vacuum analyze')
  honest = await countAll(await session(honestly), world)
}, 600_000)

/** The calls that read more than is allowed, and how much. */
function worse(counted: Buffers | undefined): string[] {
  return calls.flatMap((call) =>
    sizes(call).flatMap((size) => {
      const name = `${call.name}, ${size}`
      const [buffers = NaN, honestly = NaN] = [counted?.get(name), honest.get(name)]
      return buffers <= allowed(call, honestly, size) ? [] : [`${name}: ${buffers}, honestly ${honestly}`]
    }),
  )
}

test('every function and view of the schema has an entry', async () => {
  const found = await honestly.query<{ name: string }>(
    `select proname as name from pg_proc where pronamespace = 'pullgate'::regnamespace
      union select viewname from pg_views where schemaname = 'pullgate' order by name`,
  )
  expect(Object.keys(entries).sort()).toEqual(found.map(({ name }) => name).sort())
  for (const entry of Object.values(entries)) {
    if ('helperOf' in entry) expect(entries[entry.helperOf]).toHaveProperty('calls')
  }
})

// Those that look for a job by its id in all of the 32 days of history, up to four times, read 120.
test('with true statistics a call reads a bounded number of pages for each element', () => {
  const bounded = calls.filter(({ readsAll }) => readsAll === undefined)
  const counts = bounded.flatMap(({ name }) =>
    [1, 100].map((size) => ({ name, size, buffers: honest.get(`${name}, ${size}`) ?? NaN })),
  )
  expect(counts.filter(({ size, buffers }) => !(buffers <= 50 + 150 * size))).toEqual([])
})

describe.each(Object.entries(hostile))('%s', (_, arrange) => {
  const database = useDatabase()
  const counted: Record<string, Buffers> = {}
  beforeAll(async () => {
    await withoutAutovacuum(database)
    await arrange(database)
    const world = await openWorld(database)
    const before = await session(database)
    await planAll(before, world)
    await fillCrowd(database)
    const beside = await besideCrowd(world)
    counted['planned before'] = await countAll(before, beside, honest)
    counted['planned after'] = await countAll(await session(database), beside, honest)
  }, 600_000)

  test.each(['planned before', 'planned after'])(
    'no call reads more than it has to, %s the crowd came',
    (planned) => {
      expect(worse(counted[planned])).toEqual([])
    },
  )
})

test('no function reads more than it has to for a role with other planner settings', async () => {
  const odd = await session(honestly)
  await odd.query(`
    set enable_indexscan = off; set enable_indexonlyscan = off; set enable_nestloop = off; set enable_sort = off;
    set random_page_cost = 1000; set cpu_index_tuple_cost = 10; set plan_cache_mode = force_custom_plan`)
  const counted = await countAll(odd, await besideCrowd(world), honest)
  const views = calls.filter(({ isView }) => isView === true).map(({ name }) => name)
  expect(worse(counted).filter((name) => !views.some((view) => name.startsWith(view)))).toEqual([])
}, 600_000)
