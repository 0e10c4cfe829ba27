import type pg from 'pg'

/**
 * What every connection to the database begins with, whoever opens it: pool, listener, search for the primary, and
 * commands. A role or a database can have settings that each new session starts with; those that pullgate depends on
 * are made here, and nowhere else.
 */

type Setting = {
  readonly name: string
  readonly value: string
  /** Only these values do. Without it others cost time, or answers in another zone, and nothing breaks. */
  readonly needed?: RegExp
}

const settings: readonly Setting[] = [
  // Instants leave the server as texts, and pg reads those of ISO alone: others become null.
  { name: 'DateStyle', value: 'ISO, MDY', needed: /^ISO/ },
  { name: 'TimeZone', value: 'UTC' },
  // With 0 and less, digits of float8 are left out.
  { name: 'extra_float_digits', value: '1' },
  // Texts of SQL are read by these: backslashes, `= null`, names without a schema.
  { name: 'standard_conforming_strings', value: 'on', needed: /^on$/ },
  { name: 'transform_null_equals', value: 'off', needed: /^off$/ },
  { name: 'search_path', value: 'pg_catalog, pg_temp' },
  // Off, a null in an array becomes the text "NULL".
  { name: 'array_nulls', value: 'on', needed: /^on$/ },
  // Statements of ours meet by design; others would end in 40001.
  { name: 'default_transaction_isolation', value: 'read committed', needed: /^read (un)?committed$/ },
  // On, a publish that is refused ends the session.
  { name: 'exit_on_error', value: 'off', needed: /^off$/ },
  // What limits a statement's time is PULLGATE_STATEMENT_TIMEOUT_MS. The listener is idle for most of its life.
  { name: 'lock_timeout', value: '0' },
  { name: 'transaction_timeout', value: '0' },
  { name: 'idle_session_timeout', value: '0' },
  { name: 'idle_in_transaction_session_timeout', value: '0' },
  // Functions switch sequential scans and hash joins off, and need something to be left.
  { name: 'enable_indexscan', value: 'on' },
  { name: 'enable_indexonlyscan', value: 'on' },
  { name: 'enable_bitmapscan', value: 'on' },
  { name: 'enable_nestloop', value: 'on' },
]

/** It answers, but takes no writes: a standby, or set to read-only. */
export class ReadOnlyServer extends Error {
  override readonly name = 'ReadOnlyServer'
}

// Schema-qualified and without operators: nothing here depends on the search path.
const inspection = `select pg_catalog.current_setting('transaction_read_only') as "readOnly",
  pg_catalog.current_setting('server_encoding') as "encoding", pg_catalog.pg_backend_pid() as "pid",
  pg_catalog.quote_ident(current_user) as "user",
  ${settings.map(({ name }) => `pg_catalog.current_setting('${name}', true) as "${name}"`).join(', ')}`

type Inspected = { readonly [column: string]: string | number | null }

/** A statement that makes those of the settings that this version of Postgres knows. */
function assigning(list: readonly Setting[], local: boolean): string {
  const values = list.map(({ name, value }) => `('${name}', '${value}')`).join(', ')
  return `select pg_catalog.set_config(s.name, s.value, ${local}) from (values ${values}) as s (name, value)
    where pg_catalog.current_setting(s.name, true) is not null`
}

/** Settings that this server knows, and has otherwise. */
const differing = (row: Inspected) =>
  settings.filter(({ name, value }) => ![value, null].includes(row[name] as string | null))

async function inspect(client: pg.ClientBase): Promise<Inspected> {
  const { rows } = await client.query<Inspected>(inspection)
  const [row] = rows
  if (row?.readOnly !== 'off') throw new ReadOnlyServer('the server takes no writes: a standby, or read-only')
  if (row.encoding !== 'UTF8') {
    throw new Error(
      `the encoding of the database is ${row.encoding}, and pullgate needs UTF8: ` +
        `create database … encoding 'UTF8' template template0`,
    )
  }
  return row
}

/**
 * Prepares a new connection: makes the settings. Rejects with ReadOnlyServer unless the server takes writes, and with
 * what to do for a database that is not UTF8: it may hold texts that cannot be handed out.
 * `pooled`: something between us and it may share sessions. Then nothing is set, which would be the next client's as
 * well, and a setting that would break things is an error.
 */
export async function openSession(client: pg.ClientBase): Promise<{ readonly pooled: boolean }> {
  const row = await inspect(client)
  // Poolers make up the process id that a connection is told, since they hand it to one server process after another.
  const pooled = (client as pg.ClientBase & { processID: number }).processID !== row.pid
  const wrong = differing(row)
  if (!pooled) {
    if (wrong.length > 0) await client.query(assigning(wrong, false))
    return { pooled }
  }
  const harmful = wrong.filter(({ name, needed }) => needed?.test(String(row[name])) === false)
  if (harmful.length > 0) {
    const remedy = harmful
      .map(({ name, value }) => `alter role ${row.user} set ${name} = '${value}'`)
      .join('; ')
    throw new Error(
      `sessions begin with settings that pullgate cannot work with, and behind a pooler it cannot change: ${remedy}`,
    )
  }
  return { pooled }
}

/** The settings for the rest of a session that is known to be nobody else's. */
export async function claimSession(client: pg.ClientBase): Promise<void> {
  const wrong = differing(await inspect(client))
  if (wrong.length > 0) await client.query(assigning(wrong, false))
}

const noTimeout: Setting = { name: 'statement_timeout', value: '0' }

/**
 * Begins a transaction in which the settings hold, behind a pooler as well, and which has no limit of time. Rejects as
 * openSession does.
 */
export async function beginWithSettings(client: pg.ClientBase): Promise<void> {
  await client.query('begin isolation level read committed')
  await client.query(assigning([noTimeout, ...settings], true))
  await inspect(client)
}
