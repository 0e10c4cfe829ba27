import type { JobState } from './job-states.ts'
import type { JobDetail, Snapshot, Topic, TopicCounts } from './reads.ts'
import type {
  ClaimedJob,
  JobId,
  Lease,
  Problem,
  PullKey,
  SettleStatus,
  Subscription,
  SubscriptionId,
  TopicId,
} from './types.ts'

/** What the gateway needs of the database. src/db holds the real stores; tests of src/dispatch bring their own. */

/** So many jobs for pulls of this subscription; with a key, for the one that has it. */
export type Slot = {
  readonly subscription: Subscription
  readonly jobs: number
  readonly key?: PullKey | undefined
}

/** Where claims of some lanes begin (sql/functions/marks.sql): parallel lists, decimal texts. */
export type LaneMarks = { readonly lanes: readonly string[]; readonly marks: readonly string[] }

export type Claim = {
  /** Each with the index of its slot; in hand-out order. */
  readonly jobs: readonly { readonly slot: number; readonly job: ClaimedJob }[]
  /** Slots whose subscription has ended. They got nothing. */
  readonly endedSlots: readonly number[]
  /** It came back short, but ready jobs were visible: locked by another claim, which may let go of them, or just come. */
  readonly left?: boolean
  /** What the statement made ready before it claimed. */
  readonly due?: DueResult
}

/** With the id of the gateway that the claim was made under; 0 stands for none. */
export type ClaimReply = Claim & { readonly gateway: number }

/** A claim statement of which it is not known whether it took anything. */
export type UnheardClaim = {
  /** The number that it went by. */
  readonly id: string
  readonly subscriptions: readonly SubscriptionId[]
  /** Monotonic milliseconds. */
  readonly sentAt: number
}

export type Held = { readonly id: JobId; readonly lease: Lease }

export type DueResult = {
  /** Topics that have ready jobs now. */
  readonly topics: readonly TopicId[]
  readonly promoted: number
  readonly expired: number
  /** Leases looked at, renewed ones included. */
  readonly leasesChecked: number
  readonly leasesLost: Readonly<Record<string, number>>
  readonly offersEnded: Readonly<Record<string, number>>
  readonly more: boolean
  /** How long the statement waited for an instant that was close. */
  readonly waitedMs: number
  /** Jobs that could neither be changed nor set aside. They are due still. */
  readonly stuck: number
}

export type DueClaim = Claim & { readonly due: DueResult }

export type Look = {
  readonly topics: readonly TopicId[]
  readonly marks: LaneMarks
  readonly dueAfter: string | null
  /** Jobs that have been claimable for less do not count. */
  readonly readyMs: number
  /** Whether to draw a fresh transaction id. */
  readonly fence: boolean
  /** Whether to look for gateways whose lock is free. */
  readonly gateways: boolean
}

export type LookResult = {
  readonly readyTopics: readonly TopicId[]
  readonly ended: readonly SubscriptionId[]
  /** Milliseconds to the next due instant if it is within 2 s; 0 if it has passed. */
  readonly dueInMs: number | null
  /** The topic that has a ready job then, as far as can be told. */
  readonly dueTopic: TopicId | null
  readonly fence: bigint | null
  /** Every transaction with a lower id had ended before the look. */
  readonly horizon: bigint
  /** Gateways whose session has ended; their ids are never locked again. */
  readonly unlocked: readonly number[]
}

/** What a later look compares with: the last seq drawn, then a transaction id, then the instant (text). */
export type Pair = { readonly upto: bigint; readonly fence: bigint; readonly at: string }

export type Advance = {
  readonly topics: readonly TopicId[]
  readonly marks: LaneMarks
  readonly dueAfter: string | null
  readonly pair: Pair | null
  readonly leftOut: readonly bigint[]
}

export type AdvanceResult = {
  /** New marks, side by side, if all transactions below the pair's fence but those left out have ended. */
  readonly passed: (LaneMarks & { readonly topics: readonly TopicId[]; readonly dueAfter: string }) | null
  readonly pair: Pair
  /** Transactions that still run, of those below the fence and those left out. */
  readonly running: readonly bigint[]
}

export type JobStore = {
  claim(
    topic: { readonly id: TopicId; readonly name: string },
    slots: readonly Slot[],
    marks: LaneMarks,
  ): Promise<ClaimReply>
  /** Makes claims count as if made now. Resolves to those that still do, with the ends of their leases. */
  refresh(jobs: readonly Held[]): Promise<readonly { readonly lease: Lease; readonly leaseEndsAt: Date }[]>
  /** What `runDue` does, and then what `claim` does, in one statement. */
  claimDue(
    limit: number,
    dueAfter: string | null,
    ...claim: Parameters<JobStore['claim']>
  ): Promise<DueClaim & ClaimReply>
  giveBack(jobs: readonly Held[]): Promise<number>
  confirm(jobs: readonly Held[]): Promise<number>
  doubt(jobs: readonly Held[]): Promise<number>
}

/**
 * What becomes of claims whose gateway has died, or has not heard of them (sql/functions/gateway.sql). All resolve to the
 * number of jobs given back.
 */
export type GatewayStore = {
  /** Of others: what they had not confirmed is in doubt. */
  bury(gateways: readonly number[]): Promise<number>
  /** Of ids that this gateway has had: `held` goes over to `heir`, the rest has reached nobody. */
  retire(gateways: readonly number[], heir: number, held: readonly Held[]): Promise<number>
  /** Of claims that were sent in the last so many seconds. */
  giveBackUnheard(claims: readonly UnheardClaim[], seconds: number): Promise<number>
}

/** Pulls that come again with their key (sql/functions/give-again.sql). */
export type ReplayStore = {
  /** At most `max` of the jobs that an earlier pull with the key was handed and still holds. */
  giveAgain(key: PullKey, subscription: Subscription, max: number): Promise<readonly ClaimedJob[]>
}

/** What a gateway asks and says without claiming anything (sql/functions/look.sql, due.sql, marks.sql, wake.sql). */
export type WatchStore = {
  runDue(limit: number, dueAfter: string | null): Promise<DueResult>
  look(look: Look): Promise<LookResult>
  /** Topics that publishers notify for, for 30 s. Resolves to those that they may not have notified for until now. */
  arm(gateway: string, topics: readonly TopicId[]): Promise<readonly TopicId[]>
  disarm(gateway: string, topics: readonly TopicId[]): Promise<void>
  advanceMarks(advance: Advance): Promise<AdvanceResult>
  /** At most `limit` ready jobs with a seq above `from`, up to their lane's mark, are seated anew. */
  reseat(
    marks: LaneMarks,
    from: bigint,
    limit: number,
  ): Promise<{ readonly topics: readonly TopicId[]; readonly remaining: boolean }>
}

export type Settled = {
  readonly status: SettleStatus
  readonly state: JobState | null
  readonly dueAt: Date | null
}

/** What a heartbeat was answered; nulls unless the lease is good, `cancelReason` also without a cancel. */
export type Beat = {
  readonly status: SettleStatus
  readonly leaseEndsAt: Date | null
  readonly leaseSeconds: number | null
  readonly cancelReason: string | null
}

export type LeaseNow = Pick<Beat, 'leaseEndsAt' | 'cancelReason'>

export type SettleStore = {
  /** `result` is JSON text. Without a lease it counts for a job whose acknowledgement was automatic. */
  complete(id: JobId, lease: Lease | null, result: string | null): Promise<Settled>
  fail(
    id: JobId,
    lease: Lease | null,
    error: string,
    retry: boolean,
    retryAfterSeconds: number | null,
  ): Promise<Settled>
  release(id: JobId, lease: Lease, delaySeconds: number | null): Promise<Settled>
  /** `progress` is JSON text; null keeps the last one. */
  heartbeat(id: JobId, lease: Lease, leaseSeconds: number | null, progress: string | null): Promise<Beat>
  /** The lease as it is, without renewing it; undefined if it is not held any more, as far as a look can say. */
  readLease(id: JobId, lease: Lease): Promise<LeaseNow | undefined>
  cancel(id: JobId, reason: string | null): Promise<JobState>
  retry(id: JobId): Promise<JobState>
}

export type SubscriptionUse = Subscription & { readonly jobsHeld: number }

export type SubscriptionSettings = Pick<
  Subscription,
  'name' | 'ack' | 'leaseSeconds' | 'offerSeconds' | 'maxParked'
> & {
  readonly topics: readonly string[]
}

export type SubscriptionStore = {
  /** The same name and settings give the same subscription; other settings reject: `subscription-conflict`. */
  create(settings: SubscriptionSettings): Promise<Subscription>
  read(id: SubscriptionId): Promise<SubscriptionUse | undefined>
  list(): Promise<SubscriptionUse[]>
  /** False if it had ended already, null if it is unknown. */
  end(id: SubscriptionId, release: boolean): Promise<boolean | null>
  touch(ids: readonly SubscriptionId[]): Promise<void>
}

export type PublishOptions = {
  readonly priority?: number | undefined
  readonly runAt?: string | undefined
  readonly delaySeconds?: number | undefined
  readonly dedupeKey?: string | undefined
  readonly maxAttempts?: number | undefined
  readonly onLost?: string | undefined
  readonly expiresAt?: string | undefined
  readonly traceparent?: string | undefined
}

/** Digests, as uuids: of topic and Idempotency-Key, and of the body, byte for byte. */
export type PublishRequest = { readonly key: string; readonly body: string }

export type QueueStore = {
  /**
   * `jobSpec` is JSON text, kept as it is. `isNew` is false where no job was added: another one holds the dedupe key, or
   * the `request` was answered before. Rejects with `idempotency-key-reused` if its key was used with another body.
   */
  publish(
    topic: string,
    jobSpec: string,
    options: PublishOptions,
    request?: PublishRequest,
  ): Promise<{ readonly id: JobId; readonly isNew: boolean }>
  readJob(id: JobId): Promise<JobDetail | undefined>
  /** Counted now. */
  readTopic(name: string): Promise<(Topic & TopicCounts) | undefined>
  readTopics(): Promise<readonly Topic[]>
  /** Counts anew if the kept counts are older than `maxAgeSeconds` and nobody else is at it. */
  snapshot(maxAgeSeconds: number): Promise<Snapshot | undefined>
  upkeep(): Promise<void>
  /** Moves sequences forward that are behind the rows; resolves to their names. */
  mendSequences(): Promise<readonly string[]>
  /** What a person should look at. */
  doctor(): Promise<readonly Problem[]>
}
