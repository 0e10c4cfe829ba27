import { randomBytes } from 'node:crypto'
import { setImmediate as endOfTurn } from 'node:timers/promises'
import type { Clock } from '../domain/clock.ts'
import { GatewayError } from '../domain/errors.ts'
import type { DueResult, Held, JobStore, LaneMarks, Slot, UnheardClaim } from '../domain/ports.ts'
import type { ClaimedJob, JobId, Lease } from '../domain/types.ts'
import { coalesce } from './coalesce.ts'
import { isOfRow, isUndone } from './database.ts'
import type { Database, Statement } from './database.ts'
import { ending } from './ended-jobs.ts'
import { ascending } from './lane-marks.ts'
import { runDueStatement, toDueResult } from './watch-store.ts'
import type { DueRow } from './watch-store.ts'

/** Claims and what becomes of them: src/dispatch asks, sql/functions/claim.sql answers. */

/** Jobs that one statement may claim, for several topics: it bounds what is held in memory at once. */
const statementJobsMax = 1_000

const statements = {
  claim: {
    name: 'claim',
    text: 'select * from pullgate.claim($1::bigint[], $2::uuid[], $3::integer[], $4::bigint[], $5::bigint[], $6, $7, $8::uuid[])',
  },
  refresh: {
    name: 'refresh_claims',
    text: 'select lease, lease_ends_at as "leaseEndsAt" from pullgate.refresh_claims($1::bigint[], $2::uuid[])',
  },
  claimDue: ending({
    name: 'claim_due',
    text: `select * from pullgate.claim_due($1, $2, $3::bigint[], $4::uuid[], $5::integer[], $6::bigint[], $7::bigint[], $8, $9, $10::uuid[])`,
  }),
  setAsideUnclaimable: {
    name: 'set_aside_unclaimable',
    text: 'select pullgate.set_aside_unclaimable($1::bigint[], $2::bigint[], $3::bigint[], $4) as jobs',
  },
  giveBack: ending({
    name: 'give_back',
    text: 'select pullgate.give_back($1::bigint[], $2::uuid[]) as jobs',
  }),
  confirm: ending({ name: 'confirm', text: 'select pullgate.confirm($1::bigint[], $2::uuid[]) as jobs' }),
  doubt: ending({ name: 'doubt', text: 'select pullgate.doubt($1::bigint[], $2::uuid[]) as jobs' }),
} satisfies Record<string, Statement>

/** A job as the functions return it that hand one out. */
export type JobRow = {
  id: JobId
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

type ClaimRow = Omit<JobRow, 'id'> & {
  /** None for the note `due`. */
  slot: number | null
  note: 'ended' | 'left' | 'due' | null
  id: JobId | null
}

export function toJob(
  row: JobRow,
  topic: ClaimedJob['topic'],
  hold: Pick<ClaimedJob, 'holdSeconds' | 'offered'>,
): ClaimedJob {
  return {
    id: row.id,
    topic,
    lease: row.lease,
    leaseSeconds: row.lease_seconds,
    leaseEndsAt: row.lease_ends_at,
    ...hold,
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

export type JobStoreOptions = {
  /** How many claims of different topics may be under way at once; more share a statement. */
  readonly claimStatements: number
  /** The id that a claim sent now is made under; 0 stands for none. Undefined: none is to be sent. */
  readonly gateway: () => number | undefined
  readonly clock: Pick<Clock, 'now'>
  /** A claim statement has failed, and may have taken jobs, or take them yet. */
  readonly onUnheard: (claim: UnheardClaim) => void
}

type OpenClaim = {
  gateway: number
  jobs: { slot: number; job: ClaimedJob }[]
  endedSlots: number[]
  left: boolean
}

/** A slot of the statement, and where it was asked for. */
type Place = {
  readonly topic: ClaimedJob['topic']
  readonly slot: Slot
  readonly item: number
  readonly index: number
}

/** One claim per item. `due`: what the note of that name says. */
type Reply = { readonly claims: OpenClaim[]; readonly due: DueResult | undefined }

function toReply(
  rows: readonly ClaimRow[],
  items: readonly Claiming[],
  places: readonly Place[],
  gateway: number,
): Reply {
  const claims = items.map((): OpenClaim => ({ gateway, jobs: [], endedSlots: [], left: false }))
  let due: DueResult | undefined
  for (const row of rows) {
    if (row.note === 'due') {
      due = toDueResult(JSON.parse(row.job_spec) as DueRow)
      continue
    }
    const place = places[(row.slot ?? 0) - 1]
    const claim = claims[place?.item ?? -1]
    if (place === undefined || claim === undefined)
      throw new Error(`a claim returned slot ${row.slot} of ${places.length}`)
    const { id } = row
    if (id !== null) {
      const { offerSeconds } = place.slot.subscription
      const hold = { holdSeconds: offerSeconds ?? row.lease_seconds, offered: offerSeconds !== null }
      claim.jobs.push({ slot: place.index, job: toJob({ ...row, id }, place.topic, hold) })
    } else if (row.note === 'ended') claim.endedSlots.push(place.index)
    else claim.left = true
  }
  return { claims, due }
}

export function createJobStore(database: Database, options: JobStoreOptions): JobStore {
  async function about<Row extends Record<string, unknown>>(statement: Statement, held: readonly Held[]) {
    return database.query<Row>(statement, [held.map((job) => job.id), held.map((job) => job.lease)])
  }

  async function report(statement: Statement, held: readonly Held[]): Promise<number> {
    const rows = await about<{ jobs: number }>(statement, held)
    return rows[0]?.jobs ?? 0
  }

  /** A statement with the parameters of pullgate.claim after its `own`. */
  async function runClaim(
    statement: Statement,
    items: readonly Claiming[],
    own: readonly unknown[] = [],
  ): Promise<Reply> {
    const places = items.flatMap(({ topic, slots }, item) =>
      slots.map((slot, index): Place => ({ topic, slot, item, index })),
    )
    const gateway = options.gateway()
    if (gateway === undefined) {
      // It has waited for its turn while the session was lost.
      throw new GatewayError('database-unavailable', {
        detail: 'the gateway has lost its session with the database, and opens another; try again',
        retryAfterSeconds: 1,
      })
    }
    const subscriptions = places.map(({ slot }) => slot.subscription.id)
    const claim = {
      id: randomBytes(8).readBigInt64BE().toString(),
      subscriptions,
      sentAt: options.clock.now(),
    }
    const values = [
      ...own,
      places.map(({ topic }) => topic.id),
      subscriptions,
      places.map(({ slot }) => slot.jobs),
      ...ascending(items.map(({ marks }) => marks)),
      gateway,
      claim.id,
      places.some(({ slot }) => slot.key !== undefined) ? places.map(({ slot }) => slot.key ?? null) : null,
    ]
    try {
      const reply = toReply(await database.query<ClaimRow>(statement, values), items, places, gateway)
      // Clients that closed while the claim was under way are seen first: their end waits in the same turn of the loop.
      await endOfTurn()
      return reply
    } catch (error) {
      // Also when its reply could not be read: then nobody else knows what it took.
      if (!isUndone(error)) options.onUnheard(claim)
      throw error
    }
  }
  /** One job that cannot be read or changed fails the claim of all: it is set aside, and the others are claimed. */
  async function claimAll(items: readonly Claiming[]): Promise<OpenClaim[]> {
    const claimed = runClaim(statements.claim, items)
    const { claims } = await claimed.catch(async (error: unknown) => {
      if (!isOfRow(error) || (await setAsideUnclaimable(items)) === 0) throw error
      return runClaim(statements.claim, items)
    })
    return claims
  }
  async function setAsideUnclaimable(items: readonly Claiming[]): Promise<number> {
    const [row] = await database.query<{ jobs: number }>(statements.setAsideUnclaimable, [
      items.map(({ topic }) => topic.id),
      ...ascending(items.map(({ marks }) => marks)),
      items.reduce((sum, item) => sum + weigh(item), 0),
    ])
    return row?.jobs ?? 0
  }
  const weigh = ({ slots }: Claiming) => slots.reduce((sum, { jobs }) => sum + jobs, 0)
  const claim = coalesce(claimAll, {
    concurrency: options.claimStatements,
    batchMax: statementJobsMax,
    weigh,
  })

  return {
    claim: (topic, slots, marks) => claim({ topic, slots, marks }),
    refresh: (jobs) => about<{ lease: Lease; leaseEndsAt: Date }>(statements.refresh, jobs),
    // Beside the coalesced ones: it may wait for its instant, and there is only one at a time.
    async claimDue(limit, dueAfter, topic, slots, marks) {
      const items = [{ topic, slots, marks }]
      try {
        const { claims, due } = await runClaim(statements.claimDue, items, [limit, dueAfter])
        const [claimed] = claims
        if (claimed === undefined || due === undefined) throw new Error('pullgate.claim_due returned no note')
        return { ...claimed, due }
      } catch (error) {
        // What it had made ready is not ready any more, and a job that cannot be read is looked for among the ready.
        if (!isOfRow(error)) throw error
        const [due] = await database.query<DueRow>(runDueStatement, [limit, dueAfter])
        const [claimed] = await claimAll(items)
        if (claimed === undefined || due === undefined) throw error
        return { ...claimed, due: toDueResult(due) }
      }
    },
    giveBack: (jobs) => report(statements.giveBack, jobs),
    confirm: (jobs) => report(statements.confirm, jobs),
    doubt: (jobs) => report(statements.doubt, jobs),
  }
}
