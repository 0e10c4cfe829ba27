import { setImmediate as endOfTurn } from 'node:timers/promises'
import type { Claim, Held, JobStore, LaneMarks, Slot } from '../domain/ports.ts'
import type { ClaimedJob, JobId, Lease } from '../domain/types.ts'
import { coalesce } from './coalesce.ts'
import type { Database, Statement } from './database.ts'

/** Claims and what becomes of them: src/dispatch asks, sql/functions/claim.sql answers. */

/** Jobs that one statement may claim, for several topics: it bounds what is held in memory at once. */
const statementJobsMax = 1_000

const statements = {
  claim: {
    name: 'claim',
    text: `select * from pullgate.claim($1::bigint[], $2::uuid[], $3::integer[], $4::bigint[], $5::bigint[],
      p_keys => $6::uuid[])`,
  },
  giveBack: { name: 'give_back', text: 'select pullgate.give_back($1::bigint[], $2::uuid[]) as jobs' },
  confirm: { name: 'confirm', text: 'select pullgate.confirm($1::bigint[], $2::uuid[]) as jobs' },
  doubt: { name: 'doubt', text: 'select pullgate.doubt($1::bigint[], $2::uuid[]) as jobs' },
} satisfies Record<string, Statement>

type ClaimRow = {
  slot: number
  note: 'ended' | 'left' | null
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

function toJob(row: ClaimRow & { id: JobId }, topic: ClaimedJob['topic'], slot: Slot): ClaimedJob {
  const { offerSeconds } = slot.subscription
  return {
    id: row.id,
    topic,
    lease: row.lease,
    leaseSeconds: row.lease_seconds,
    leaseEndsAt: row.lease_ends_at,
    holdSeconds: offerSeconds ?? row.lease_seconds,
    offered: offerSeconds !== null,
    attempt: row.attempt,
    redelivered: row.redelivered,
    publishedAt: row.published_at,
    readySeconds: row.ready_seconds,
    traceparent: row.traceparent,
    jobSpec: row.job_spec,
  }
}

type Claiming = {
  readonly topic: ClaimedJob['topic']
  readonly slots: readonly Slot[]
  readonly marks: LaneMarks
}

type OpenClaim = { jobs: { slot: number; job: ClaimedJob }[]; endedSlots: number[]; left: boolean }

/** `claimStatements`: how many claims of different topics may be under way at once; more share a statement. */
export function createJobStore(database: Database, claimStatements: number): JobStore {
  async function report(statement: Statement, held: readonly Held[]): Promise<number> {
    const values = [held.map((job) => job.id), held.map((job) => job.lease)]
    const rows = await database.query<{ jobs: number }>(statement, values)
    return rows[0]?.jobs ?? 0
  }

  async function claimAll(items: readonly Claiming[]): Promise<Claim[]> {
    const places = items.flatMap(({ topic, slots }, item) =>
      slots.map((slot, index) => ({ topic, slot, item, index })),
    )
    const rows = await database.query<ClaimRow>(statements.claim, [
      places.map(({ topic }) => topic.id),
      places.map(({ slot }) => slot.subscription.id),
      places.map(({ slot }) => slot.jobs),
      items.flatMap(({ marks }) => marks.lanes),
      items.flatMap(({ marks }) => marks.marks),
      places.some(({ slot }) => slot.key !== undefined) ? places.map(({ slot }) => slot.key ?? null) : null,
    ])
    const claims = items.map((): OpenClaim => ({ jobs: [], endedSlots: [], left: false }))
    for (const row of rows) {
      const place = places[row.slot - 1]
      const claim = claims[place?.item ?? -1]
      if (place === undefined || claim === undefined)
        throw new Error(`pullgate.claim returned slot ${row.slot} of ${places.length}`)
      const { id } = row
      if (id !== null)
        claim.jobs.push({ slot: place.index, job: toJob({ ...row, id }, place.topic, place.slot) })
      else if (row.note === 'ended') claim.endedSlots.push(place.index)
      else claim.left = true
    }
    // Clients that closed while the claim was under way are seen first: their end waits in the same turn of the loop.
    await endOfTurn()
    return claims
  }
  const claim = coalesce(claimAll, {
    concurrency: claimStatements,
    batchMax: statementJobsMax,
    weigh: ({ slots }) => slots.reduce((sum, { jobs }) => sum + jobs, 0),
  })

  return {
    claim: (topic, slots, marks) => claim({ topic, slots, marks }),
    giveBack: (jobs) => report(statements.giveBack, jobs),
    confirm: (jobs) => report(statements.confirm, jobs),
    doubt: (jobs) => report(statements.doubt, jobs),
  }
}
