import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, afterEach, describe, expect, inject, test } from 'vitest'
import { checkSchema, migrate, type Migration, readSqlFiles, type SqlFiles } from '../../src/db/migrations.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'

const serverUrl = inject('serverUrl')
const files = readSqlFiles()
const clients: pg.Client[] = []
const databases: string[] = []

async function freshDatabase(): Promise<string> {
  const name = `pullgate_migrate_${randomBytes(6).toString('hex')}`
  await runOnce(serverUrl, `create database ${name}`)
  databases.push(name)
  return withDatabase(serverUrl, name)
}
async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  clients.push(client)
  return client
}
async function fresh(): Promise<pg.Client> {
  return connect(await freshDatabase())
}
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end()))
})
afterAll(async () => {
  for (const name of databases) await runOnce(serverUrl, `drop database ${name} with (force)`)
})

/** Everything in the schema, and what the migrator has written down. */
async function contents(client: pg.Client): Promise<unknown> {
  const sql = `
    select c.relname as name, c.xmin::text as changed from pg_class c where c.relnamespace = to_regnamespace('pullgate')
    union all
    select p.oid::regprocedure::text, p.xmin::text from pg_proc p where p.pronamespace = to_regnamespace('pullgate')
    union all
    select revision::text, applied_at::text from pullgate.migration
    union all
    select name, checksum || applied_at::text from pullgate.function_file
    order by 1, 2`
  return (await client.query(sql)).rows
}

function migration(revision: number, text: string): Migration {
  const name = `${String(revision).padStart(6, '0')}_test.sql`
  return { name, revision, text, checksum: text, breaking: text.startsWith('--! breaking\n') }
}
const next = Math.max(...files.migrations.map((file) => file.revision)) + 1
const withMigration = (text: string, number = next): SqlFiles => ({
  ...files,
  migrations: [...files.migrations, migration(number, text)],
})

describe('migrate', () => {
  test('brings an empty database to the current revision', async () => {
    const client = await fresh()
    expect(await checkSchema(client)).toEqual({ state: 'missing', revision: 0 })
    const result = await migrate(client)
    expect(result.applied).toEqual([
      ...files.migrations.map((file) => `migrations/${file.name}`),
      ...files.functions.map((file) => `functions/${file.name}`),
    ])
    expect(await checkSchema(client)).toEqual({ state: 'current', revision: result.revision })
    const { rows } = await client.query<{ id: string }>(`select pullgate.publish('a', '{}') as id`)
    expect(rows).toEqual([{ id: '1' }])
  })
  test('twice changes nothing', async () => {
    const client = await fresh()
    await migrate(client)
    const before = await contents(client)
    expect((await migrate(client)).applied).toEqual([])
    expect(await contents(client)).toEqual(before)
  })
  test('by two at once is done by one', async () => {
    const url = await freshDatabase()
    const [one, two] = [await connect(url), await connect(url)]
    const results = await Promise.all([migrate(one), migrate(two)])
    expect(results.map((result) => result.applied.length > 0).sort()).toEqual([false, true])
  })
  test('of two databases of a cluster at once does both', async () => {
    const [one, two] = [await fresh(), await fresh()]
    const results = await Promise.all([migrate(one), migrate(two)])
    expect(results.map((result) => result.applied.length > 0)).toEqual([true, true])
    // A migrator of one database does not hold up one of the other.
    await one.query(`begin; select pg_advisory_xact_lock(hashtext('pullgate.migrate'))`)
    await two.query(`set lock_timeout = '1s'`)
    expect((await migrate(two)).applied).toEqual([])
    await one.query('commit')
  })
  test('applies what is new, and a function file whose text changed', async () => {
    const client = await fresh()
    await migrate(client)
    const changed: SqlFiles = {
      ...withMigration('create table pullgate.extra ()'),
      functions: files.functions.map((file, index) =>
        index === 0 ? { ...file, text: `${file.text}\n-- changed`, checksum: 'changed' } : file,
      ),
    }
    expect(await checkSchema(client, changed)).toMatchObject({ state: 'older', revision: next - 1 })
    const { applied, revision } = await migrate(client, changed)
    expect([applied, revision]).toEqual([
      [`migrations/${migration(next, '').name}`, `functions/${files.functions[0]?.name}`],
      next,
    ])
    expect(await checkSchema(client, changed)).toEqual({ state: 'current', revision: next })
  })
  test('refuses a changed text of an applied migration, and changes nothing', async () => {
    const client = await fresh()
    await migrate(client)
    const before = await contents(client)
    const changed: SqlFiles = {
      migrations: files.migrations.map((file) => ({ ...file, checksum: 'other' })),
      functions: files.functions.map((file) => ({ ...file, checksum: 'other' })),
    }
    await expect(migrate(client, changed)).rejects.toThrow(/differs from the one that was applied/)
    expect(await contents(client)).toEqual(before)
  })
  test('that fails half-way leaves nothing behind', async () => {
    const client = await fresh()
    await expect(migrate(client, withMigration('select 1 / 0'))).rejects.toMatchObject({ code: '22012' })
    expect(await checkSchema(client)).toEqual({ state: 'missing', revision: 0 })
    const { rows } = await client.query(`select from pg_namespace where nspname = 'pullgate'`)
    expect(rows).toEqual([])
  })
  test('gives up on a lock that an open transaction keeps from it, so that publishers do not queue behind', async () => {
    const url = await freshDatabase()
    const [client, open, other] = [await connect(url), await connect(url), await connect(url)]
    await migrate(client)
    await open.query(`begin; select pullgate.publish('a', '1')`)
    const before = await contents(client)
    const changed = { ...files, functions: files.functions.map((file) => ({ ...file, checksum: 'changed' })) }
    await other.query(`set statement_timeout = '10s'`)
    const [migrated, published] = await Promise.allSettled([
      migrate(client, changed),
      other.query(`select pullgate.publish('a', '1')`),
    ])
    expect(migrated).toMatchObject({ status: 'rejected', reason: { code: '55P03' } })
    expect(published.status).toBe('fulfilled')
    expect(await contents(client)).toEqual(before)
    await open.query('commit')
    expect((await migrate(client, changed)).applied.length).toBe(files.functions.length)
  })
  test('gives every function that runs as its owner its planner settings, also one that was replaced', async () => {
    const client = await fresh()
    const settings = `select distinct array(
        select s from unnest(proconfig) s where s !~ '^(search_path|enable_bitmapscan|enable_indexscan)=' order by s) as settings
      from pg_proc where pronamespace = 'pullgate'::regnamespace and prosecdef`
    const all = ['enable_nestloop=on', 'enable_seqscan=off', 'jit=off', 'plan_cache_mode=force_generic_plan']
    await migrate(client)
    expect((await client.query(settings)).rows).toEqual([{ settings: all }])
    const functions = files.functions.map((file) =>
      file.name === 'wake.sql' ? { ...file, checksum: 'changed' } : file,
    )
    expect((await migrate(client, { ...files, functions })).applied).toEqual(['functions/wake.sql'])
    expect((await client.query(settings)).rows).toEqual([{ settings: all }])
  })
  test('leaves no function to the public, also a new one', async () => {
    const client = await fresh()
    await migrate(client)
    await migrate(client, withMigration('create function pullgate.extra() returns int language sql return 1'))
    const { rows } = await client.query(
      `select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'pullgate'::regnamespace
          and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)`,
    )
    expect(rows).toEqual([])
  })
})

describe('a schema of another version', () => {
  test('that is newer is fine to run on, but not to migrate', async () => {
    const client = await fresh()
    await migrate(client, withMigration('create table pullgate.extra ()'))
    expect(await checkSchema(client)).toEqual({ state: 'newer', revision: next })
    const before = await contents(client)
    await expect(migrate(client)).rejects.toThrow(/newer than this version/)
    expect(await contents(client)).toEqual(before)
  })
  test('that is newer and breaking is not to be run on, also after further revisions', async () => {
    const client = await fresh()
    const breaking = withMigration('--! breaking\ncreate table pullgate.extra ()')
    await migrate(client, breaking)
    expect(await checkSchema(client)).toEqual({ state: 'breaking', revision: next })
    expect(await checkSchema(client, breaking)).toEqual({ state: 'current', revision: next })
    const more = { ...breaking, migrations: [...breaking.migrations, migration(next + 1, 'select 1')] }
    await migrate(client, more)
    expect(await checkSchema(client)).toEqual({ state: 'breaking', revision: next + 1 })
    await expect(migrate(client)).rejects.toThrow(/newer than this version/)
  })
  test('with a newer revision but a missing older one is older for those who know both', async () => {
    const client = await fresh()
    await migrate(client, withMigration('select 1', next + 1))
    const both = {
      ...files,
      migrations: [...files.migrations, migration(next, 'select 2'), migration(next + 1, 'select 1')],
    }
    expect(await checkSchema(client, both)).toMatchObject({ state: 'older' })
    expect((await migrate(client, both)).applied).toEqual([`migrations/${migration(next, '').name}`])
  })
  test('checkSchema changes nothing and needs no rights beyond reading', async () => {
    const client = await fresh()
    await migrate(client)
    await client.query('begin read only')
    expect(await checkSchema(client)).toMatchObject({ state: 'current' })
    await client.query('commit')
  })
})
