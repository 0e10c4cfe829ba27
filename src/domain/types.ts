/** What travels between the rooms. Ids are decimal or UUID texts; instants are `Date`s of the database's clock. */

export type TopicId = string & { readonly brand?: 'topic' }
export type JobId = string & { readonly brand?: 'job' }
export type SubscriptionId = string & { readonly brand?: 'subscription' }
/** A digest of a subscription and of the Idempotency-Key of a pull. */
export type PullKey = string & { readonly brand?: 'pull key' }
export type Lease = string & { readonly brand?: 'lease' }

/** Immutable; only `endedAt` is ever set, once. */
export type Subscription = {
  readonly id: SubscriptionId
  readonly name: string | null
  readonly topics: readonly { readonly id: TopicId; readonly name: string }[]
  readonly ack: 'auto' | 'explicit'
  readonly leaseSeconds: number
  /** How long a claimed job is only offered; null: it runs at once. Only with explicit acknowledgement. */
  readonly offerSeconds: number | null
  readonly maxParked: number | null
  readonly createdAt: Date
  readonly lastPullAt: Date | null
  readonly endedAt: Date | null
}

export type ClaimedJob = {
  readonly id: JobId
  readonly topic: { readonly id: TopicId; readonly name: string }
  readonly lease: Lease
  readonly leaseSeconds: number
  readonly leaseEndsAt: Date
  /** How long the hold lasted when this was read: that of an offer until it is accepted, else the lease. */
  readonly holdSeconds: number
  /** It is only offered: its hold, until then, is no lease yet. */
  readonly offered: boolean
  readonly attempt: number
  readonly redelivered: boolean
  readonly publishedAt: Date
  /** Seconds between the instant from which the job could be claimed and its claim, by the database's clock. */
  readonly readySeconds: number
  readonly traceparent: string | null
  /** As published, byte for byte. */
  readonly jobSpec: string
}

/**
 * Why a topic is looked at. `backlog`: the claim before it found as many jobs as it asked for. `fence`: jobs were
 * published in silence while it was being armed, or an earlier claim found them locked. `tick`: it is busy, and polled
 * instead of armed. `reseat`: a long transaction left jobs below the mark.
 */
export const wakeCauses = [
  'arrival',
  'notification',
  'due',
  'resync',
  'backstop',
  'backlog',
  'fence',
  'tick',
  'reseat',
] as const
export type WakeCause = (typeof wakeCauses)[number]

/**
 * Why claimed jobs went back that no executor is known to have. Its gateway died, as another one found; or it lives:
 * it lost the session that says so, its claim was answered too late, or not at all, or no answer to the pull could be
 * made (`answer failed`).
 */
export const returnReasons = [
  'gateway died',
  'session lost',
  'answer late',
  'answer lost',
  'answer failed',
] as const
export type ReturnReason = (typeof returnReasons)[number]

export const pullOutcomes = [
  'jobs',
  'empty',
  'aborted',
  'superseded',
  'ended',
  'rejected',
  'draining',
  'error',
] as const
export type PullOutcome = (typeof pullOutcomes)[number]

export type SettleVerb = 'complete' | 'fail' | 'release'
/** `lost`: the lease is stale; `unknown`: there is no such job. */
export type SettleStatus = 'ok' | 'lost' | 'unknown'

/**
 * Why notifications are not heard. `network`: no connection, or one that broke or fell silent; `server`: it ended the
 * session or refused one; `standby`: it is none that takes writes; `pooler`: statements work, but notifications do not
 * arrive, as behind a transaction pooler.
 */
export const listenerLossCauses = ['network', 'server', 'standby', 'pooler', 'unknown'] as const
export type ListenerLossCause = (typeof listenerLossCauses)[number]

/** What pullgate.doctor finds. */
export const problemKinds = ['jobs-set-aside', 'sequence-behind'] as const

export type Problem = {
  readonly problem: (typeof problemKinds)[number]
  /** How many jobs or sequences. */
  readonly things: number
  /** Which, the first few, and what to do. */
  readonly detail: string
}
