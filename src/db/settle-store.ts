import { GatewayError } from '../domain/errors.ts'
import type { JobState } from '../domain/job-states.ts'
import type { Settled, SettleStore } from '../domain/ports.ts'
import type { JobId, Lease, SettleStatus } from '../domain/types.ts'
import { coalesce } from './coalesce.ts'
import { sqlStateOf } from './database.ts'
import type { Database, Statement } from './database.ts'
import { ending } from './ended-jobs.ts'

/**
 * Settles and heartbeats by lease (sql/functions/settle.sql), outcomes by job id (outcome.sql). Those of a verb that
 * come at the same time share a statement, and so a commit.
 */

const statements = {
  complete: ending({
    name: 'settle_completes',
    ofClients: true,
    text: 'select * from pullgate.settle_completes($1::bigint[], $2::uuid[], $3::text[])',
  }),
  fail: ending({
    name: 'settle_fails',
    ofClients: true,
    text: `select * from pullgate.settle_fails(
      $1::bigint[], $2::uuid[], $3::text[], $4::boolean[], $5::double precision[])`,
  }),
  release: ending({
    name: 'settle_releases',
    ofClients: true,
    text: 'select * from pullgate.settle_releases($1::bigint[], $2::uuid[], $3::double precision[])',
  }),
  heartbeat: {
    name: 'heartbeats',
    ofClients: true,
    text: 'select * from pullgate.heartbeats($1::bigint[], $2::uuid[], $3::integer[], $4::text[])',
  },
  readLease: {
    name: 'read_leases',
    ofClients: true,
    text: 'select * from pullgate.read_leases($1::bigint[], $2::uuid[])',
  },
  setAside: {
    name: 'set_aside_held',
    text: 'select pullgate.set_aside_held($1, $2, $3, $4) as aside',
  },
  cancel: ending({ name: 'cancel', ofClients: true, text: 'select pullgate.cancel($1, $2) as state' }),
  retry: { name: 'retry', ofClients: true, text: 'select pullgate.retry($1) as state' },
} satisfies Record<string, Statement>

type SettledRow = { status: SettleStatus; state: JobState | null; due_at?: Date | null }
type LeaseRow = { held: boolean; lease_ends_at: Date | null; cancel_reason: string | null }
type HeartbeatRow = {
  status: SettleStatus
  lease_ends_at: Date | null
  lease_seconds: number | null
  cancel_reason: string | null
}

/** A job that somebody else has locked (pullgate.lock_jobs), or what Postgres has no place for, like U+0000 in a text. */
export const isOfOneItem = (error: unknown): boolean =>
  error instanceof GatewayError &&
  (error.code !== 'database-unavailable' || sqlStateOf(error.cause) === '55P03')

export function createSettleStore(database: Database): SettleStore {
  /** Arguments of many calls, each a row of values, as one statement's arrays: a column of values per parameter. */
  const together = <Row extends object>(statement: Statement) =>
    coalesce(
      async (calls: readonly (readonly unknown[])[]) => {
        const columns = (calls[0] ?? []).map((_, column) => calls.map((values) => values[column]))
        try {
          return await database.query<Row>(statement, columns)
        } catch (error) {
          const [alone, another] = calls
          if (alone !== undefined && another === undefined) await setAside(alone, error)
          throw error
        }
      },
      { isOfOneItem },
    )
  /** A job that its own settle cannot change would be run again, in vain. Class 22 may be a fault of the settle's values. */
  async function setAside([id, lease]: readonly unknown[], error: unknown): Promise<void> {
    const cause = error instanceof GatewayError ? error.cause : error
    const sqlState = sqlStateOf(cause)
    if (sqlState === undefined || !/^(23|XX00[12])/.test(sqlState)) return
    const constraint = cause instanceof Error && 'constraint' in cause ? cause.constraint : null
    // If this fails as well, the end of the lease comes to the same.
    await database.query(statements.setAside, [id, lease, sqlState, constraint]).catch(() => undefined)
  }
  const complete = together<SettledRow>(statements.complete)
  const fail = together<SettledRow>(statements.fail)
  const release = together<SettledRow>(statements.release)
  const heartbeat = together<HeartbeatRow>(statements.heartbeat)
  const readLease = together<LeaseRow>(statements.readLease)

  const settled = async (row: Promise<SettledRow>): Promise<Settled> => {
    const { status, state, due_at } = await row
    return { status, state, dueAt: due_at ?? null }
  }
  async function changeState(statement: Statement, values: readonly unknown[]): Promise<JobState> {
    const [row] = await database.query<{ state: JobState }>(statement, values)
    if (row === undefined) throw new Error(`pullgate.${statement.name} returned no row`)
    return row.state
  }

  return {
    complete: (id: JobId, lease: Lease | null, result) => settled(complete([id, lease, result])),
    fail: (id, lease, error, retry, retryAfterSeconds) =>
      settled(fail([id, lease, error, retry, retryAfterSeconds])),
    release: (id, lease, delaySeconds) => settled(release([id, lease, delaySeconds])),
    async heartbeat(id, lease, leaseSeconds, progress) {
      const row = await heartbeat([id, lease, leaseSeconds, progress])
      const { status, lease_ends_at, lease_seconds, cancel_reason } = row
      return { status, leaseEndsAt: lease_ends_at, leaseSeconds: lease_seconds, cancelReason: cancel_reason }
    },
    async readLease(id, lease) {
      const { held, lease_ends_at, cancel_reason } = await readLease([id, lease])
      return held ? { leaseEndsAt: lease_ends_at, cancelReason: cancel_reason } : undefined
    },
    cancel: (id, reason) => changeState(statements.cancel, [id, reason]),
    retry: (id) => changeState(statements.retry, [id]),
  }
}
