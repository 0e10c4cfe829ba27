import pg from 'pg'
import type { Emit } from '../domain/events.ts'
import { asError, errorCodeOf, GatewayError } from '../domain/errors.ts'
import type { FieldError } from '../domain/errors.ts'
import { clientFor, createPrimary } from './primary.ts'
import { openSession } from './session.ts'

export type DatabaseOptions = {
  /** May name several servers: connections lead to the one that is the primary when they are made. */
  readonly url: string
  readonly applicationName: string
  readonly poolMax: number
  /** For a connection from the pool, and for the server to answer one statement. */
  readonly connectTimeoutMs: number
  readonly statementTimeoutMs: number
  readonly emit: Emit
}

/** A prepared statement: planned once per connection. `ofClients`: values of requests are among its parameters. */
export type Statement = { readonly name: string; readonly text: string; readonly ofClients?: true }

export type PoolState = {
  readonly total: number
  readonly idle: number
  readonly waiting: number
  readonly max: number
}

export type Database = {
  /** Rejects with a GatewayError: the database's own codes, or `database-unavailable`. */
  query<Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]>
  /** For start-up work outside the prepared statements. */
  withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T>
  poolState(): PoolState
  close(): Promise<void>
}

/**
 * Server-side reasons that pass: shutdown, start-up, too many connections, time-outs, serialization, resources, and a
 * server that has become a standby.
 */
const passing = /^(08|40|53|57|58)|^55P03$|^25(006|P0[34])$/

/** Of what the server said only: EPIPE, too, has five capital letters. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined
}

/**
 * Maps what pg throws to the error table. Only our own errors' texts go on to clients, the database's `hint`
 * included; a foreign message can quote a row or a statement.
 */
export function toGatewayError(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error
  const sqlState = sqlStateOf(error)
  const code = sqlState === undefined ? undefined : errorCodeOf(sqlState)
  if (code !== undefined && error instanceof pg.DatabaseError) {
    const detail = error.hint === undefined ? error.message : `${error.message}. ${error.hint}`
    return new GatewayError(code, { detail, fields: fieldOf(error), cause: error })
  }
  // 54001: JSON nested deeper than the server's stack allows.
  if (sqlState === '54001') {
    return new GatewayError('invalid-job-spec', {
      detail: 'the JSON is nested too deeply for Postgres',
      cause: error,
    })
  }
  // Data that Postgres has no place for: U+0000 in a text, an instant outside its calendar.
  if (sqlState !== undefined && /^(22021|22007|22008|22P05)$/.test(sqlState)) {
    return new GatewayError('invalid-request', {
      detail: 'Postgres cannot store a value: U+0000 in a text, or an instant out of range',
      cause: error,
    })
  }
  if (sqlState === undefined || passing.test(sqlState)) {
    return new GatewayError('database-unavailable', {
      detail: 'the database does not answer at the moment; try again',
      retryAfterSeconds: 1 + Math.floor(Math.random() * 4),
      cause: error,
    })
  }
  return new GatewayError('internal', { cause: error })
}

/** The argument that one of our own errors is about, by the name that it has in HTTP. */
function fieldOf({ column, message, hint }: pg.DatabaseError): readonly FieldError[] | undefined {
  if (column === undefined) return undefined
  const field = column.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  return [{ field, message: hint ?? message }]
}

/** A migration changed what the statement returns since this connection prepared it. It was not executed. */
function isOutdated(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.routine === 'RevalidateCachedQuery'
}

/**
 * Whether the server said that it undid the statement. An error of another kind says nothing: it may have been done, or
 * be done yet. So does the end of a session, which can come between the commit and the word of it.
 */
export function isUndone(error: unknown): boolean {
  const sqlState = sqlStateOf(error instanceof GatewayError ? error.cause : error)
  return sqlState !== undefined && !/^(08|57P|58|25P|XX)/.test(sqlState)
}

/** Whether the data of a row can raise it, so that the statement fails again as long as it meets that row: pullgate.is_of_row. */
export function isOfRow(error: unknown): boolean {
  const sqlState = sqlStateOf(error instanceof GatewayError ? error.cause : error)
  return sqlState !== undefined && /^(22|23|XX00[12])/.test(sqlState)
}

export function openDatabase(options: DatabaseOptions): Database {
  const { emit } = options
  const primary = createPrimary(options.url, options.connectTimeoutMs)
  // A pooler may run each transaction in another session, where what was prepared is unknown, or another's.
  let pooled = false
  const pool = new pg.Pool({
    connectionString: primary.anyServer,
    Client: clientFor(primary),
    // A server that has become a standby must not get into the pool.
    verify: (client, done) => {
      openSession(client).then((session) => {
        pooled = session.pooled
        done()
      }, done)
    },
    application_name: options.applicationName,
    max: options.poolMax,
    connectionTimeoutMillis: options.connectTimeoutMs,
    statement_timeout: options.statementTimeoutMs,
    // A server that vanished without a word answers nothing, not even its time-out.
    query_timeout: options.statementTimeoutMs + 2_000,
    keepAlive: true,
    // A gateway whose pulls are all parked needs one; opening another takes a few milliseconds.
    idleTimeoutMillis: 10_000,
  })
  let closing = false
  const report = (error: Error) => {
    // The pool does not wait for its connections to close: a server that stops right after us still reaches them.
    if (!closing) emit({ type: 'database error', sqlState: sqlStateOf(error) ?? 'other', error })
  }
  // An idle client whose connection breaks reports here, and without a listener it would end the process.
  pool.on('error', report)
  // A checked-out client may report between two queries, where nobody else listens.
  pool.on('connect', (client) => client.on('error', report))

  /**
   * pg-pool 3.14 refuses whoever has waited too long for a connection, and still hands over the one that was being
   * verified for them: kept by nobody it would be lost to the pool for ever, and after a few of them the pool with it.
   */
  function checkOut(): Promise<pg.PoolClient> {
    return new Promise((resolve, reject) => {
      let refused = false
      pool.connect((error, client, release) => {
        if (client === undefined) {
          refused = true
          reject(asError(error))
        } else if (refused) release()
        else resolve(client)
      })
    })
  }

  async function execute<Row extends pg.QueryResultRow>(config: pg.QueryConfig): Promise<Row[]> {
    const client = await checkOut()
    try {
      const { rows } = await client.query<Row>(config)
      client.release()
      return rows
    } catch (error) {
      // What the database refused leaves its connection as good as before. Any other may be broken, or lead to a server
      // that has become a standby.
      client.release(toGatewayError(error).status < 500 ? undefined : asError(error))
      throw error
    }
  }

  return {
    async query<Row extends pg.QueryResultRow>(statement: Statement, given: readonly unknown[]) {
      const { name, text } = statement
      const values = [...given]
      try {
        return await execute<Row>(pooled ? { text, values } : { name, text, values }).catch(
          (error: unknown) => {
            if (!isOutdated(error)) throw error
            return execute<Row>({ text, values })
          },
        )
      } catch (error) {
        const asked = toGatewayError(error)
        // Without a value of a request no error can be a request's fault.
        const isOurs = asked.status < 500 && statement.ofClients !== true
        const mapped = isOurs ? new GatewayError('internal', { cause: error }) : asked
        if (mapped.status >= 500 && error instanceof Error) report(error)
        throw mapped
      }
    },
    async withClient(work) {
      const client = await checkOut()
      try {
        return await work(client)
      } finally {
        client.release()
      }
    },
    poolState: () => ({
      total: pool.totalCount,
      idle: pool.idleCount,
      waiting: pool.waitingCount,
      max: options.poolMax,
    }),
    close() {
      closing = true
      return pool.end()
    },
  }
}
