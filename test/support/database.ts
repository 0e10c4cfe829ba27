import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, inject } from 'vitest'
import { until } from './http.ts'
import { runOnce, withDatabase } from './postgres.ts'

export type TestDatabase = {
  readonly url: string
  /** Runs a statement on a shared connection. */
  query<Row extends pg.QueryResultRow = Record<string, unknown>>(
    sql: string,
    values?: unknown[],
  ): Promise<Row[]>
  /** The first column of the first row. */
  value(sql: string, values?: unknown[]): Promise<unknown>
  /** A session of its own, closed after the file's tests. */
  session(): Promise<pg.Client>
}

/** The database a test file works in: a clone of the template, dropped after it. Call once, at the top of the file. */
export function useDatabase(): TestDatabase {
  const name = `pullgate_test_${randomBytes(6).toString('hex')}`
  const serverUrl = inject('serverUrl')
  const url = withDatabase(serverUrl, name)
  const sessions: pg.Client[] = []
  let shared: pg.Client | undefined

  async function session(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url })
    // A test may terminate the session's backend.
    client.on('error', () => undefined)
    await client.connect()
    sessions.push(client)
    return client
  }
  beforeAll(async () => {
    await runOnce(serverUrl, `create database ${name} template ${inject('template')}`)
    shared = await session()
  })
  afterAll(async () => {
    await Promise.all(sessions.map((client) => client.end().catch(() => undefined)))
    await runOnce(serverUrl, `drop database if exists ${name} with (force)`)
  })

  async function query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    if (shared === undefined) throw new Error('the database is there from beforeAll on')
    const result = await shared.query<Row>(sql, values)
    return result.rows
  }
  return {
    url,
    session,
    query,
    async value(sql, values) {
      const [row] = await query<Record<string, unknown>>(sql, values)
      return Object.values(row ?? {})[0]
    },
  }
}

/** Resolves once the session's backend waits for a lock: an awaited signal in place of a sleep. */
export async function waitsForLock(database: Pick<TestDatabase, 'value'>, session: pg.Client): Promise<void> {
  const { processID } = session as pg.Client & { processID: number }
  await until(async () => {
    const waiting = await database.value(
      `select wait_event_type = 'Lock' from pg_stat_activity where pid = $1`,
      [processID],
    )
    expect(waiting).toBe(true)
  })
}
