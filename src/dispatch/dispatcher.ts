import type { Clock } from '../domain/clock.ts'
import type { Emit } from '../domain/events.ts'
import type { Claim, JobStore } from '../domain/ports.ts'
import type { SubscriptionId, TopicId, WakeCause } from '../domain/types.ts'
import type { Deliveries } from './deliveries.ts'
import { assign, passOver, reserve, toSlots } from './hand-out.ts'
import type { Waiter } from './waiter.ts'

/** Jobs per claim statement. Above about 100 a longer batch gains little and delays the first of it. */
export const claimJobsMax = 200

type Topic = {
  readonly id: TopicId
  readonly name: string
  /** First in, first out: a Set keeps the order of insertion and forgets in O(1). */
  readonly waiters: Set<Waiter>
  /** Those of the waiters that leave after the next claim that comes back short. */
  readonly leaving: Set<Waiter>
  claiming: boolean
  /** A wake that came while a claim was in flight: one more claim follows it. */
  again: { readonly cause: WakeCause; readonly wokenAt: number } | undefined
}

export type Dispatcher = {
  /**
   * Parks the waiter, then kicks its topics: in this order a job that commits in between is not missed. It is
   * answered within `waitMs`, or, while a claim counts on it, by that claim; 0 is one try on each of its topics.
   */
  park(waiter: Waiter, waitMs: number): void
  /** The client has left. False if the waiter had been answered already. */
  leave(waiter: Waiter): boolean
  kick(topic: TopicId, cause: WakeCause): 'woke' | 'idle'
  kickAll(cause: WakeCause): void
  /** Answers the pulls of subscriptions that ended. */
  endSubscriptions(ids: readonly SubscriptionId[]): void
  readonly parked: number
  parkedFor(subscription: SubscriptionId): number
  parkedOn(topic: string): number
  topicsWithWaiters(): TopicId[]
  /** No claim begins from now on; resolves when those in flight have been handed out. */
  stopClaiming(): Promise<void>
  /** Answers every parked pull, spread over `spreadMs`; resolves when all have been. */
  answerAll(spreadMs: number): Promise<void>
}

export type DispatcherOptions = {
  readonly store: Pick<JobStore, 'claim'>
  readonly deliveries: Pick<Deliveries, 'giveBack'>
  readonly clock: Clock
  readonly emit: Emit
}

/**
 * One claim serves all waiters: per topic at most one is in flight, for as many jobs as its live waiters want.
 * Everything that may mean work is a kick; what a kick finds is the claim's to say.
 */
export function createDispatcher({ store, deliveries, clock, emit }: DispatcherOptions): Dispatcher {
  const topics = new Map<TopicId, Topic>()
  const perSubscription = new Map<SubscriptionId, number>()
  let parked = 0
  let draining = false
  let claimsInFlight = 0
  let onQuiet: (() => void) | undefined

  function park(waiter: Waiter, waitMs: number): void {
    if (draining) {
      waiter.answer({ kind: 'draining' })
      return
    }
    const { id } = waiter.subscription
    waiter.parked = true
    parked += 1
    perSubscription.set(id, (perSubscription.get(id) ?? 0) + 1)
    for (const { id: topicId, name } of waiter.subscription.topics) {
      const topic = topics.get(topicId) ?? {
        id: topicId,
        name,
        waiters: new Set(),
        leaving: new Set(),
        claiming: false,
        again: undefined,
      }
      topics.set(topicId, topic)
      topic.waiters.add(waiter)
    }
    const ids = waiter.subscription.topics.map((topic) => topic.id)
    if (waitMs > 0) waiter.deadline = clock.after(waitMs, () => endWait(waiter))
    else leaveAfterTries(waiter, ids)
    for (const topicId of ids) kick(topicId, 'arrival')
  }

  function endWait(waiter: Waiter): void {
    if (waiter.reservedBy !== undefined) leaveAfterTries(waiter, [waiter.reservedBy])
    else if (leave(waiter)) waiter.answer({ kind: 'empty' })
  }

  function leaveAfterTries(waiter: Waiter, ids: readonly TopicId[]): void {
    waiter.lastTries = new Set(ids)
    for (const id of ids) topics.get(id)?.leaving.add(waiter)
  }

  function leave(waiter: Waiter): boolean {
    if (!waiter.parked) return false
    waiter.parked = false
    waiter.deadline?.cancel()
    parked -= 1
    const { id, topics: wanted } = waiter.subscription
    const left = (perSubscription.get(id) ?? 1) - 1
    if (left === 0) perSubscription.delete(id)
    else perSubscription.set(id, left)
    for (const { id: topicId } of wanted) {
      const topic = topics.get(topicId)
      if (topic === undefined) continue
      topic.waiters.delete(waiter)
      topic.leaving.delete(waiter)
      forgetIfUnused(topic)
    }
    return true
  }

  function forgetIfUnused(topic: Topic): void {
    if (topic.waiters.size === 0 && !topic.claiming) topics.delete(topic.id)
  }

  function kick(topicId: TopicId, cause: WakeCause, wokenAt = clock.now()): 'woke' | 'idle' {
    const topic = topics.get(topicId)
    if (topic === undefined || topic.waiters.size === 0 || draining) return 'idle'
    emit({ type: 'wake', cause })
    if (topic.claiming) topic.again ??= { cause, wokenAt }
    else void claimUntilServed(topic, cause, wokenAt)
    return 'woke'
  }

  async function claimUntilServed(topic: Topic, cause: WakeCause, wokenAt: number): Promise<void> {
    topic.claiming = true
    claimsInFlight += 1
    let next: { readonly cause: WakeCause; readonly wokenAt: number } | undefined = { cause, wokenAt }
    while (next !== undefined && !draining) {
      topic.again = undefined
      const leavingBefore = [...topic.leaving]
      const full = await claimOnce(topic, next.cause, next.wokenAt)
      next = wokenMeanwhile(topic) ?? (full ? { cause: 'backlog', wokenAt: clock.now() } : undefined)
      // Whoever came while the claim was under way is served by the one that follows.
      if (!full) endTries(topic, next === undefined ? [...topic.leaving] : leavingBefore)
    }
    topic.claiming = false
    claimsInFlight -= 1
    forgetIfUnused(topic)
    if (claimsInFlight === 0) onQuiet?.()
  }

  // Read through a function: kicks set it while the claim is awaited.
  function wokenMeanwhile(topic: Topic): Topic['again'] {
    return topic.again
  }

  /** The claim came back short: the topic had nothing for those who wanted no more than a try. */
  function endTries(topic: Topic, leaving: readonly Waiter[]): void {
    for (const waiter of leaving) {
      if (waiter.reservedBy !== undefined) {
        // A claim of another topic counts on it; this topic is tried again after that one.
        passOver(waiter, topic.id)
        continue
      }
      topic.leaving.delete(waiter)
      waiter.lastTries?.delete(topic.id)
      if (waiter.lastTries?.size === 0 && leave(waiter)) waiter.answer({ kind: 'empty' })
    }
  }

  /** Returns whether the claim found all it asked for, so that more may be waiting. */
  async function claimOnce(topic: Topic, cause: WakeCause, wokenAt: number): Promise<boolean> {
    const reserved = reserve(topic, claimJobsMax)
    const wanted = reserved.reduce((sum, entry) => sum + entry.max, 0)
    if (wanted === 0) return false
    const startedAt = clock.now()
    const seconds = () => (clock.now() - startedAt) / 1000
    try {
      const claim = await store.claim(topic, toSlots(reserved))
      emit({ type: 'claim', cause, topic: topic.name, jobs: claim.jobs.length, seconds: seconds() })
      handOut(topic, reserved, claim, wokenAt)
      return claim.jobs.length === wanted
    } catch (error) {
      emit({
        type: 'claim failed',
        topic: topic.name,
        seconds: seconds(),
        error: error instanceof Error ? error : new Error(String(error)),
      })
      for (const waiter of reserved) if (leave(waiter)) waiter.answer({ kind: 'error', error })
      return false
    } finally {
      for (const waiter of reserved) unreserve(waiter)
    }
  }

  function handOut(topic: Topic, reserved: readonly Waiter[], claim: Claim, wokenAt: number): void {
    const { shares, leftOver, ended } = assign(topic, reserved, claim)
    for (const { job } of claim.jobs) {
      emit({ type: 'job claimed', topic: topic.name, readySeconds: job.readySeconds })
    }
    for (const [waiter, jobs] of shares) {
      leave(waiter)
      waiter.answer({ kind: 'jobs', jobs, wokenAt })
    }
    for (const waiter of ended) if (leave(waiter)) waiter.answer({ kind: 'ended' })
    if (leftOver.length > 0) deliveries.giveBack(leftOver)
  }

  function unreserve(waiter: Waiter): void {
    const { passedOver } = waiter
    waiter.reservedBy = undefined
    waiter.passedOver = undefined
    if (waiter.parked && passedOver !== undefined) for (const id of passedOver) kick(id, 'arrival')
  }

  return {
    park,
    leave,
    kick,
    kickAll(cause) {
      for (const id of [...topics.keys()]) kick(id, cause)
    },
    endSubscriptions(ids) {
      const gone = new Set(ids.filter((id) => perSubscription.has(id)))
      if (gone.size === 0) return
      for (const topic of [...topics.values()]) {
        for (const waiter of topic.waiters) {
          // One that a claim counts on is answered by that claim, which sees the end as well or serves it.
          if (!gone.has(waiter.subscription.id) || waiter.reservedBy !== undefined) continue
          if (leave(waiter)) waiter.answer({ kind: 'ended' })
        }
      }
    },
    get parked() {
      return parked
    },
    parkedFor: (id) => perSubscription.get(id) ?? 0,
    parkedOn(name) {
      for (const topic of topics.values()) if (topic.name === name) return topic.waiters.size
      return 0
    },
    topicsWithWaiters: () => [...topics.values()].filter((t) => t.waiters.size > 0).map((t) => t.id),
    stopClaiming() {
      draining = true
      if (claimsInFlight === 0) return Promise.resolve()
      return new Promise((resolve) => (onQuiet = resolve))
    },
    async answerAll(spreadMs) {
      const waiting = new Set([...topics.values()].flatMap((topic) => [...topic.waiters]))
      const answers = [...waiting].map(
        (waiter) =>
          new Promise<void>((resolve) => {
            clock.after(clock.random() * spreadMs, () => {
              if (leave(waiter)) waiter.answer({ kind: 'draining' })
              resolve()
            })
          }),
      )
      await Promise.all(answers)
    },
  }
}
