import type { JobState } from '../domain/job-states.ts'
import type { Settled, SettleStore } from '../domain/ports.ts'
import type { JobId, Lease, SettleStatus } from '../domain/types.ts'
import { coalesce } from './coalesce.ts'
import type { Database, Statement } from './database.ts'

/** Settles and heartbeats by lease (sql/functions/settle.sql), outcomes by job id (outcome.sql). */

const statements = {
  complete: {
    name: 'settle_completes',
    text: 'select * from pullgate.settle_completes($1::bigint[], $2::uuid[], $3::text[])',
  },
  fail: { name: 'settle_fail', text: 'select * from pullgate.settle_fail($1, $2, $3, $4, $5)' },
  release: { name: 'settle_release', text: 'select * from pullgate.settle_release($1, $2, $3)' },
  heartbeat: { name: 'heartbeat', text: 'select * from pullgate.heartbeat($1, $2, $3, $4)' },
  cancel: { name: 'cancel', text: 'select pullgate.cancel($1, $2) as state' },
  retry: { name: 'retry', text: 'select pullgate.retry($1) as state' },
} satisfies Record<string, Statement>

export function createSettleStore(database: Database): SettleStore {
  async function settle(statement: Statement, values: readonly unknown[]): Promise<Settled> {
    const [row] = await database.query<{
      status: SettleStatus
      state: JobState | null
      due_at?: Date | null
    }>(statement, values)
    if (row === undefined) throw new Error(`pullgate.${statement.name} returned no row`)
    return { status: row.status, state: row.state, dueAt: row.due_at ?? null }
  }
  async function changeState(statement: Statement, values: readonly unknown[]): Promise<JobState> {
    const [row] = await database.query<{ state: JobState }>(statement, values)
    if (row === undefined) throw new Error(`pullgate.${statement.name} returned no row`)
    return row.state
  }
  // By far the most frequent settle: those of all requests of a moment share a statement.
  const complete = coalesce(
    async (items: readonly { id: JobId; lease: Lease | null; result: string | null }[]) => {
      const columns = [
        items.map((item) => item.id),
        items.map((item) => item.lease),
        items.map((item) => item.result),
      ]
      const rows = await database.query<{ status: SettleStatus; state: JobState | null }>(
        statements.complete,
        columns,
      )
      return rows.map((row): Settled => ({ ...row, dueAt: null }))
    },
  )

  return {
    complete: (id, lease, result) => complete({ id, lease, result }),
    fail: (id, lease, error, retry, retryAfterSeconds) =>
      settle(statements.fail, [id, lease, error, retry, retryAfterSeconds]),
    release: (id, lease, delaySeconds) => settle(statements.release, [id, lease, delaySeconds]),
    async heartbeat(id, lease, leaseSeconds, progress) {
      const [row] = await database.query<{
        status: SettleStatus
        lease_ends_at: Date | null
        cancel_reason: string | null
      }>(statements.heartbeat, [id, lease, leaseSeconds, progress])
      if (row === undefined) throw new Error('pullgate.heartbeat returned no row')
      return { status: row.status, leaseEndsAt: row.lease_ends_at, cancelReason: row.cancel_reason }
    },
    cancel: (id, reason) => changeState(statements.cancel, [id, reason]),
    retry: (id: JobId) => changeState(statements.retry, [id]),
  }
}
