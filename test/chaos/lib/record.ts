import type { Ack, OnLost } from '../history.ts'
import type { ChaosPostgres } from './postgres.ts'

/** What the database says once all is over: every job as it ended, and every change on the way there. */

export type Change = {
  readonly at: number
  /** The gateway's life that made it; others call themselves otherwise. */
  readonly application: string
  readonly op: 'INSERT' | 'UPDATE' | 'DELETE'
  readonly id: string
  readonly state: string
  readonly attempts: number
  readonly deliveries: number
  readonly lease: string | null
  readonly settled: string | null
  readonly leaseEndsAt: number | null
  readonly ack: Ack
  readonly subscription: string | null
  /** Of the pull that it was claimed for, as a digest in hexadecimal digits. */
  readonly pullKey: string | null
  /** Of the entry that the job's log got. */
  readonly outcome: string | null
}

export type FinalJob = {
  readonly id: string
  readonly key: string
  readonly state: string
  readonly attempts: number
  readonly maxAttempts: number
  readonly onLost: OnLost
  readonly lease: string | null
  readonly settled: string | null
  readonly log: readonly { readonly outcome: string; readonly lease?: string; readonly state: string }[]
}

export type DatabaseRecord = {
  readonly changes: readonly Change[]
  readonly jobs: readonly FinalJob[]
  /** Sessions of gateways that were left when all of them had ended. */
  readonly sessions: number
}

/** Reads all, and forgets it for the next time. */
export async function readRecord(postgres: ChaosPostgres): Promise<DatabaseRecord> {
  const changes = await postgres.query<Change>(
    `select (extract(epoch from at) * 1000)::float8 as at, application, op, id::text, state, attempts, deliveries,
        lease::text, settled, (extract(epoch from lease_ends_at) * 1000)::float8 as "leaseEndsAt",
        case when auto_ack then 'auto' else 'explicit' end as ack, subscription_id::text as subscription,
        replace(pull_key::text, '-', '') as "pullKey", outcome
      from chaos.audit order by id, seq`,
  )
  const columns = `id::text, job_spec::json ->> 'k' as key, attempts, max_attempts as "maxAttempts",
    on_lost as "onLost", lease::text, settled, log`
  const jobs = await postgres.query<FinalJob>(
    `select state, ${columns} from pullgate.job union all select state, ${columns} from pullgate.history`,
  )
  const [left] = await postgres.query<{ sessions: number }>(
    `select count(*)::integer as sessions from pg_stat_activity where application_name like 'chaos/g%'`,
  )
  await postgres.query(
    `truncate chaos.audit, pullgate.job, pullgate.history, pullgate.lane, pullgate.topic, pullgate.subscription,
      pullgate.armed`,
  )
  return { changes, jobs, sessions: left?.sessions ?? 0 }
}
