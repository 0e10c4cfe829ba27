import { setImmediate as endOfTurn } from 'node:timers/promises'
import type { Claim, DueResult, Held, JobStore, Slot } from '../domain/ports.ts'
import type { ClaimedJob, JobId, Lease, SubscriptionId, TopicId } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'

/** Claims and what becomes of them: src/dispatch asks, sql/functions/claim.sql and due.sql answer. */

const statements = {
  claim: { name: 'claim', text: 'select * from pullgate.claim($1, $2::uuid[], $3::integer[])' },
  giveBack: { name: 'give_back', text: 'select pullgate.give_back($1::bigint[], $2::uuid[]) as jobs' },
  confirm: { name: 'confirm', text: 'select pullgate.confirm($1::bigint[], $2::uuid[]) as jobs' },
  doubt: { name: 'doubt', text: 'select pullgate.doubt($1::bigint[], $2::uuid[]) as jobs' },
  runDue: { name: 'run_due', text: 'select * from pullgate.run_due($1)' },
  backstop: {
    name: 'backstop',
    text: 'select ready_topics::text[], ended::text[], due_in_ms from pullgate.backstop($1::bigint[])',
  },
} satisfies Record<string, Statement>

type ClaimRow = {
  slot: number
  id: JobId | null
  lease: Lease
  lease_seconds: number
  lease_ends_at: Date
  attempt: number
  redelivered: boolean
  published_at: Date
  ready_seconds: number
  traceparent: string | null
  job_spec: string
}

function toJob(row: ClaimRow & { id: JobId }, topic: ClaimedJob['topic']): ClaimedJob {
  return {
    id: row.id,
    topic,
    lease: row.lease,
    leaseSeconds: row.lease_seconds,
    leaseEndsAt: row.lease_ends_at,
    attempt: row.attempt,
    redelivered: row.redelivered,
    publishedAt: row.published_at,
    readySeconds: row.ready_seconds,
    traceparent: row.traceparent,
    jobSpec: row.job_spec,
  }
}

export function createJobStore(database: Database): JobStore {
  async function report(statement: Statement, held: readonly Held[]): Promise<number> {
    const values = [held.map((job) => job.id), held.map((job) => job.lease)]
    const rows = await database.query<{ jobs: number }>(statement, values)
    return rows[0]?.jobs ?? 0
  }
  return {
    async claim(topic: ClaimedJob['topic'], slots: readonly Slot[]): Promise<Claim> {
      const rows = await database.query<ClaimRow>(statements.claim, [
        topic.id,
        slots.map((slot) => slot.subscription.id),
        slots.map((slot) => slot.jobs),
      ])
      const claim = { jobs: [] as { slot: number; job: ClaimedJob }[], endedSlots: [] as number[] }
      for (const row of rows) {
        const slot = row.slot - 1
        const { id } = row
        if (id === null) claim.endedSlots.push(slot)
        else claim.jobs.push({ slot, job: toJob({ ...row, id }, topic) })
      }
      // Clients that closed while the claim was under way are seen first: their end waits in the same turn of the loop.
      await endOfTurn()
      return claim
    },
    giveBack: (jobs) => report(statements.giveBack, jobs),
    confirm: (jobs) => report(statements.confirm, jobs),
    doubt: (jobs) => report(statements.doubt, jobs),
    async runDue(limit) {
      const [row] = await database.query<{
        topics: TopicId[]
        promoted: number
        expired: number
        leases_checked: number
        leases_lost: DueResult['leasesLost']
        more: boolean
      }>(statements.runDue, [limit])
      if (row === undefined) throw new Error('pullgate.run_due returned no row')
      const { topics, promoted, expired, more } = row
      return {
        topics,
        promoted,
        expired,
        more,
        leasesChecked: row.leases_checked,
        leasesLost: row.leases_lost,
      }
    },
    async backstop(topics) {
      const [row] = await database.query<{
        ready_topics: TopicId[]
        ended: SubscriptionId[]
        due_in_ms: number | null
      }>(statements.backstop, [topics])
      if (row === undefined) throw new Error('pullgate.backstop returned no row')
      return { readyTopics: row.ready_topics, ended: row.ended, dueInMs: row.due_in_ms }
    },
  }
}
