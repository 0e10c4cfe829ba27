import type { ClaimedJob, PullKey, Subscription, TopicId } from '../domain/types.ts'

export type Answer =
  | { readonly kind: 'jobs'; readonly jobs: readonly ClaimedJob[]; readonly wokenAt: number }
  /** Its time is up, or it wanted one try only. */
  | { readonly kind: 'empty' }
  /** The subscription ended. */
  | { readonly kind: 'ended' }
  | { readonly kind: 'draining' }
  | { readonly kind: 'error'; readonly error: unknown }

/** Those whose wait ends within the same few milliseconds. */
export type Bucket = { readonly waiters: Set<Waiter>; readonly close: () => void }

/** A parked pull. A class, so that thousands of them share what they do and each costs its fields only. */
export abstract class Waiter {
  readonly subscription: Subscription
  /** How many jobs it takes at most. */
  readonly max: number
  /** Under which its jobs can be had again: it takes none that were claimed under another. */
  readonly key: PullKey | undefined
  /** The topic whose claim counts on this waiter; another topic's claim leaves it alone meanwhile. */
  reservedBy: TopicId | undefined = undefined
  /** Topics that were woken while it was reserved elsewhere, and have not claimed for it since. */
  passedOver: Set<TopicId> | undefined = undefined
  parked = false
  /** A claim has come back for it before: a later one that fails is no answer. */
  tried = false
  /** Its subscription has ended. */
  ended = false
  /** Where its wait ends; undefined once it has, or if it wants one try. */
  deadline: Bucket | undefined = undefined
  /** Topics whose next short claim is the waiter's last; when none is left it is answered empty. */
  lastTries: Set<TopicId> | undefined = undefined

  constructor(subscription: Subscription, max: number, key?: PullKey) {
    this.subscription = subscription
    this.max = max
    this.key = key
  }

  /** Whether an answer can still reach the client. Asked again right before jobs are handed out. */
  abstract isLive(): boolean
  /**
   * Called at most once, by the dispatcher: it has left the queues by then. Jobs are the waiter's from here on, and it
   * gives back what it cannot pass on. Never throws: other waiters are served by the same claim.
   */
  abstract answer(answer: Answer): void
}
