import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { Client, PoolClient } from 'pg'
import { beginWithSettings } from './session.ts'

/** `sql/`, seen from src/db as well as from dist/db. */
const sqlDir = new URL('../../sql/', import.meta.url)
/** Sets the planner settings of all functions, so it comes once more after every change. */
const plannerFile = 'planner.sql'

export type SqlFile = {
  readonly name: string
  readonly checksum: string
  readonly text: string
  /** What it defines depends on the server's version. */
  readonly byVersion?: boolean
}
export type Migration = SqlFile & { readonly revision: number; readonly breaking: boolean }
export type SqlFiles = { readonly migrations: readonly Migration[]; readonly functions: readonly SqlFile[] }

function readDir(dir: string): SqlFile[] {
  return readdirSync(new URL(dir, sqlDir))
    .filter((name) => name.endsWith('.sql'))
    .sort()
    .map((name) => {
      const text = readFileSync(new URL(dir + name, sqlDir), 'utf8')
      const checksum = createHash('sha256').update(text).digest('hex')
      return { name, text, checksum, byVersion: text.includes('server_version_num') }
    })
}

/**
 * The package's SQL. A migration is `NNNNNN_name.sql`; one whose first line is `--! breaking` keeps gateways that do
 * not know it from working on.
 */
export function readSqlFiles(): SqlFiles {
  const migrations = readDir('migrations/').map((file) => ({
    ...file,
    revision: Number.parseInt(file.name, 10),
    breaking: file.text.startsWith('--! breaking\n'),
  }))
  return { migrations, functions: readDir('functions/') }
}

export function readRolesFile(): string {
  return readFileSync(new URL('roles.sql', sqlDir), 'utf8')
}

export type SchemaState =
  /** `missing`, `older`: `pullgate migrate` mends it. `newer`: fine. `breaking`: this version must not run. */
  { readonly state: 'missing' | 'older' | 'current' | 'newer' | 'breaking'; readonly revision: number }

type Applied = {
  migrations: Map<number, { checksum: string; breaking: boolean }>
  functions: Map<string, { checksum: string; server_major: number }>
}

export type Queryable = Pick<Client | PoolClient, 'query'>

async function readApplied(client: Queryable): Promise<Applied | undefined> {
  const found = await client.query<{ there: boolean }>(
    `select to_regclass('pullgate.migration') is not null as there`,
  )
  if (found.rows[0]?.there !== true) return undefined
  const migrations = await client.query<{ revision: number; checksum: string; breaking: boolean }>(
    'select revision, checksum, breaking from pullgate.migration',
  )
  const functions = await client.query<{ name: string; checksum: string; server_major: number }>(
    'select name, checksum, server_major from pullgate.function_file',
  )
  return {
    migrations: new Map(migrations.rows.map((row) => [row.revision, row])),
    functions: new Map(functions.rows.map((row) => [row.name, row])),
  }
}

/** How the database's schema stands to this package. Changes nothing. */
export async function checkSchema(client: Queryable, files: SqlFiles = readSqlFiles()): Promise<SchemaState> {
  const applied = await readApplied(client)
  if (applied === undefined) return { state: 'missing', revision: 0 }
  const revision = Math.max(0, ...applied.migrations.keys())
  const known = Math.max(0, ...files.migrations.map((migration) => migration.revision))
  const unknown = [...applied.migrations].filter(([number]) => number > known)
  if (unknown.some(([, migration]) => migration.breaking)) return { state: 'breaking', revision }
  if (unknown.length > 0) return { state: 'newer', revision }
  const complete =
    files.migrations.every((migration) => applied.migrations.has(migration.revision)) &&
    files.functions.every((file) => applied.functions.get(file.name)?.checksum === file.checksum)
  return { state: complete ? 'current' : 'older', revision }
}

export type MigrateResult = {
  readonly revision: number
  readonly applied: readonly string[]
  /** Sequences that were behind the rows, and were moved forward. */
  readonly mended: readonly string[]
}

/**
 * Brings the schema to this package's revision, in one transaction; several callers at once are fine. Needs the
 * right to create the schema unless it is there, but not CREATEROLE (see roles.sql); with nothing to do it only reads.
 * Function files that depend on the server's version are applied anew when that is another than it was. Rejects, having
 * changed nothing, when an applied migration's text differs from the package's, when the database is of a newer version,
 * and when it is not UTF8.
 */
export function migrate(client: Client, files: SqlFiles = readSqlFiles()): Promise<MigrateResult> {
  return inTransaction(client, async () => {
    // One database's migrators wait for each other; another database's do not share the lock.
    await client.query(`select pg_advisory_xact_lock(hashtext('pullgate.migrate'))`)
    // Whoever publishes queues behind a migrator that waits for an open transaction: better it gives up (55P03).
    await client.query(`set local lock_timeout = '3s'`)
    return migrateLocked(client, files)
  })
}

/** Creates the roles and grants them their rights: roles.sql. Needs CREATEROLE. */
export function createRoles(client: Client): Promise<void> {
  return inTransaction(client, async () => {
    await client.query(readRolesFile())
  })
}

async function inTransaction<T>(client: Client, work: () => Promise<T>): Promise<T> {
  try {
    await beginWithSettings(client)
    const result = await work()
    await client.query('commit')
    return result
  } catch (error) {
    // The connection may be what failed; what it was told by then is what there is to say.
    await client.query('rollback').catch(() => undefined)
    throw error
  }
}

async function migrateLocked(client: Client, files: SqlFiles): Promise<MigrateResult> {
  const { state, revision } = await checkSchema(client, files)
  if (state === 'newer' || state === 'breaking') {
    throw new Error(
      `the schema is of revision ${revision}, newer than this version of pullgate knows; upgrade it`,
    )
  }
  if (state === 'missing') await createSchema(client)
  await client.query(`
    -- Functions refer to each other, in whatever order their files are read.
    set local check_function_bodies = off;
    -- Locks of rows, heap-only updates.
    set local default_table_access_method = heap;
    set local client_min_messages = warning;
  `)
  const before = await readApplied(client)
  const applied = [
    ...(await applyMigrations(client, files.migrations, before)),
    ...(await applyFunctions(client, files.functions, before)),
  ]
  if (applied.length > 0) {
    // Functions are executable by everyone unless told otherwise.
    await client.query('revoke all on all functions in schema pullgate from public')
    // A function that was replaced has lost its planner settings.
    for (const { name, text } of files.functions) if (name === plannerFile) await client.query(text)
  }
  const { rows } = await client.query<{ mended: string[] }>('select pullgate.mend_sequences() as mended')
  const mended = rows[0]?.mended ?? []
  return { revision: (await checkSchema(client, files)).revision, applied, mended }
}

/** The schema, unless somebody has created it for us, and what the migrator writes down. */
async function createSchema(client: Client): Promise<void> {
  const { rows } = await client.query(`select from pg_namespace where nspname = 'pullgate'`)
  if (rows.length === 0) await client.query('create schema pullgate')
  await client.query(`
    create table pullgate.migration (
      revision integer not null,
      name text not null,
      checksum text not null,
      breaking boolean not null,
      applied_at timestamptz not null default clock_timestamp(),
      constraint migration_pkey primary key (revision)
    );
    create table pullgate.function_file (
      name text not null,
      checksum text not null,
      -- The major version of Postgres that it was applied on.
      server_major integer not null,
      applied_at timestamptz not null default clock_timestamp(),
      constraint function_file_pkey primary key (name)
    );
  `)
}

async function applyMigrations(
  client: Client,
  migrations: readonly Migration[],
  before: Applied | undefined,
): Promise<string[]> {
  const applied: string[] = []
  for (const migration of migrations) {
    const known = before?.migrations.get(migration.revision)
    if (known !== undefined && known.checksum !== migration.checksum) {
      throw new Error(
        `migration ${migration.name} differs from the one that was applied; install its own version`,
      )
    }
    if (known !== undefined) continue
    await client.query(migration.text)
    await client.query(
      'insert into pullgate.migration (revision, name, checksum, breaking) values ($1, $2, $3, $4)',
      [migration.revision, migration.name, migration.checksum, migration.breaking],
    )
    applied.push(`migrations/${migration.name}`)
  }
  return applied
}

async function applyFunctions(
  client: Client,
  functions: readonly SqlFile[],
  before: Applied | undefined,
): Promise<string[]> {
  const { rows } = await client.query<{ major: number }>(
    `select current_setting('server_version_num')::integer / 10000 as major`,
  )
  const major = rows[0]?.major
  const applied: string[] = []
  for (const file of functions) {
    const known = before?.functions.get(file.name)
    const fits = file.byVersion !== true || known?.server_major === major
    if (known?.checksum === file.checksum && fits) continue
    await client.query(file.text)
    await client.query(
      `insert into pullgate.function_file (name, checksum, server_major) values ($1, $2, $3)
        on conflict (name) do update set
          checksum = excluded.checksum, server_major = excluded.server_major, applied_at = clock_timestamp()`,
      [file.name, file.checksum, major],
    )
    applied.push(`functions/${file.name}`)
  }
  return applied
}
