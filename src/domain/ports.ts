import type { ClaimedJob, JobId, Lease, Subscription, SubscriptionId, TopicId } from './types.ts'

/** What the dispatcher needs of the database; src/db holds the real ones. */

/** So many jobs for pulls of this subscription. */
export type Slot = { readonly subscription: Subscription; readonly jobs: number }

export type Claim = {
  /** Each with the index of its slot; in hand-out order. */
  readonly jobs: readonly { readonly slot: number; readonly job: ClaimedJob }[]
  /** Slots whose subscription has ended. They got nothing. */
  readonly endedSlots: readonly number[]
}

export type Held = { readonly id: JobId; readonly lease: Lease }

export type DueResult = {
  /** Topics that have ready jobs now. */
  readonly topics: readonly TopicId[]
  readonly promoted: number
  readonly expired: number
  readonly leasesLost: Readonly<Record<string, number>>
  readonly more: boolean
}

export type BackstopResult = {
  readonly readyTopics: readonly TopicId[]
  readonly ended: readonly SubscriptionId[]
  /** Milliseconds to the next due instant if it is within 2 s; 0 if it has passed. */
  readonly dueInMs: number | null
}

export type JobStore = {
  claim(topic: { readonly id: TopicId; readonly name: string }, slots: readonly Slot[]): Promise<Claim>
  giveBack(jobs: readonly Held[]): Promise<number>
  confirm(jobs: readonly Held[]): Promise<number>
  doubt(jobs: readonly Held[]): Promise<number>
  runDue(limit: number): Promise<DueResult>
  backstop(topics: readonly TopicId[]): Promise<BackstopResult>
}

export type SubscriptionStore = {
  read(id: SubscriptionId): Promise<Subscription | undefined>
  touch(ids: readonly SubscriptionId[]): Promise<void>
}
