import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../src/db/database.ts'
import { checkSchema, migrate, readSqlFiles } from '../../src/db/migrations.ts'
import type { SqlFiles } from '../../src/db/migrations.ts'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { startFleet } from '../support/fleet.ts'
import { gatewayFor } from '../support/gateway.ts'
import { until } from '../support/http.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { runCli, startCli } from '../support/process.ts'

const database = useDatabase()
const files = readSqlFiles()

/** A further migration, and every function file written anew. */
function nextVersion(text: string): SqlFiles {
  const revision = Math.max(...files.migrations.map((file) => file.revision)) + 1
  const name = `${String(revision).padStart(6, '0')}_test.sql`
  const added = { name, revision, text, checksum: text, breaking: false }
  return {
    migrations: [...files.migrations, added],
    functions: files.functions.map((file) => ({ ...file, checksum: `${file.checksum} again` })),
  }
}

/** As its documentation says: given up while an open transaction is in the way, and run again. */
async function migrateUntilDone(client: pg.Client, to: SqlFiles): Promise<void> {
  for (;;) {
    try {
      await migrate(client, to)
      return
    } catch (error) {
      if (!(error instanceof pg.DatabaseError) || error.code !== '55P03') throw error
    }
  }
}

test('a migration that breaks nothing runs while gateways serve, and one that is started after it serves beside them', async () => {
  const before = await Promise.all([gatewayFor(database), gatewayFor(database)])
  const gateways = [...before]
  const subscription = await before[0].subscribe('migrating')
  const fleet = startFleet(() => gateways, subscription, 8)
  const publisher = await database.session()
  const jobs = 150
  const publishing = (async () => {
    for (let n = 0; n < jobs; n += 1) await publish(publisher, 'migrating')
  })()
  await fleet.completed(50)
  const next = nextVersion('alter table pullgate.job add column note text')
  await migrateUntilDone(await database.session(), next)
  expect(await checkSchema(await database.session(), next)).toMatchObject({ state: 'current' })
  gateways.push(await gatewayFor(database))
  await publishing
  await fleet.completed(jobs)
  await fleet.stop()
  const states = await database.query(
    `select state, attempts, count(*)::integer as jobs from pullgate.jobs where topic = 'migrating' group by state, attempts`,
  )
  expect(states).toEqual([{ state: 'succeeded', attempts: 1, jobs }])
  expect([...fleet.refused]).toEqual([])
})

test('a statement whose columns a migration has changed is prepared anew, and fails nobody', async () => {
  const pool = openDatabase({
    ...{ url: database.url, applicationName: 'test', poolMax: 3 },
    ...{ connectTimeoutMs: 5_000, statementTimeoutMs: 5_000 },
    emit: (event) => expect(event).toBeUndefined(),
  })
  onTestFinished(() => pool.close())
  const define = (columns: string, values: string) =>
    database.query(`
      drop function if exists public.shape();
      create function public.shape() returns table (${columns}) language sql as 'select ${values} from pg_sleep(0.05)'`)
  const statement = { name: 'shape', text: 'select * from public.shape()' }
  const all = () => Promise.all([1, 2, 3].map(() => pool.query(statement, [])))
  await define('a integer', '1')
  expect(await all()).toEqual([[{ a: 1 }], [{ a: 1 }], [{ a: 1 }]])
  await define('a integer, b integer', '1, 2')
  const row = [{ a: 1, b: 2 }]
  expect(await all()).toEqual([row, row, row])
})

test('a migrator that is killed in the middle leaves nothing, and the next one completes', async () => {
  const name = `pullgate_killed_${randomBytes(6).toString('hex')}`
  await runOnce(inject('serverUrl'), `create database ${name}`)
  onTestFinished(() => runOnce(inject('serverUrl'), `drop database ${name} with (force)`))
  const url = withDatabase(inject('serverUrl'), name)
  const session = new pg.Client({ connectionString: url })
  await session.connect()
  onTestFinished(() => session.end())
  // Whoever creates a function stops here: the tables are there by then. It is no lock, which a time-out would end.
  await session.query(`
    create table public.held ();
    insert into public.held default values;
    create sequence public.reached;
    create function public.hold() returns event_trigger language plpgsql as $$
      begin
        perform nextval('public.reached');
        while exists (select from public.held) loop perform pg_sleep(0.01); end loop;
      end $$;
    create event trigger hold on ddl_command_end when tag in ('CREATE FUNCTION') execute function public.hold()`)
  const eventually = (sql: string) =>
    until(async () => expect((await session.query<{ yes: boolean }>(sql)).rows).toEqual([{ yes: true }]))
  const first = startCli(['migrate'], { DATABASE_URL: url })
  await eventually('select is_called as yes from public.reached')
  first.signal('SIGKILL')
  expect(await first.exited).toBe('SIGKILL')
  expect(await checkSchema(session)).toEqual({ state: 'missing', revision: 0 })
  const second = runCli(['migrate'], { DATABASE_URL: url })
  // What the first has begun goes on in the server until it is to be told to the client: the second waits for it.
  await eventually(
    `select count(*) = 1 as yes from pg_locks where locktype = 'advisory' and not granted
      and database = (select oid from pg_database where datname = current_database())`,
  )
  await session.query('delete from public.held')
  const { exit, output } = await second
  expect([exit, output]).toEqual([0, expect.stringContaining('applied migrations/000001_tables.sql')])
  expect(await checkSchema(session)).toMatchObject({ state: 'current' })
})
