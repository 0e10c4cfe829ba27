import pg from 'pg'
import type { Statistics } from '../surroundings.ts'
import type { ChaosPostgres } from './postgres.ts'

type Query = Pick<ChaosPostgres, 'query'>

/** Sessions that begin from now on have these settings; those of an earlier call are forgotten. */
export async function setSessions(postgres: Query, session: Readonly<Record<string, string>>): Promise<void> {
  const statements = await postgres.query<{ sql: string }>(
    `select format('alter database %I reset all', current_database()) as sql
      union all
      select format('alter database %I set %I = %L', current_database(), key, value)
        from json_each_text($1)`,
    [JSON.stringify(session)],
  )
  for (const { sql } of statements) await postgres.query(sql)
}

/** Rows and pages as after an analysis of such a table. The pages of an emptied one stay until they are vacuumed. */
const believed: Readonly<Record<Exclude<Statistics, 'true'>, readonly [rows: number, pages: number]>> = {
  none: [-1, 0],
  emptied: [0, 500],
  'one row': [1, 1],
  huge: [1e9, 10_000_000],
}
const triesMax = 20

/** Tells the planner so, until the tables are analysed again, by autovacuum or by hand. */
export async function tellStatistics(postgres: Query, kind: Statistics): Promise<void> {
  const tables = await postgres.query<{ name: string }>(
    `select oid::regclass::text as name from pg_class
      where relnamespace = 'pullgate'::regnamespace and relkind = 'r'`,
  )
  const names = tables.map(({ name }) => name)
  for (let tries = 0; ; tries += 1) {
    try {
      if (kind === 'true') {
        await postgres.query(`analyze ${names.join(', ')}`)
        return
      }
      if (kind === 'none')
        await postgres.query('delete from pg_statistic where starelid = any ($1::regclass[])', [names])
      const [rows, pages] = believed[kind]
      await postgres.query(
        'update pg_class set reltuples = $2, relpages = $3 where oid = any ($1::regclass[])',
        [names, rows, pages],
      )
      return
    } catch (error) {
      // Autovacuum has written the same rows of the catalogue.
      const clash = error instanceof pg.DatabaseError && ['XX000', '40P01'].includes(error.code ?? '')
      if (!clash || tries === triesMax) throw error
    }
  }
}
