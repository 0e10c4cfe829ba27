import type { DueClaim, JobStore } from '../domain/ports.ts'
import type { SubscriptionId, TopicId, WakeCause } from '../domain/types.ts'
import { clearDeadline } from './deadlines.ts'
import type { Waiter } from './waiter.ts'

export type Wake = {
  readonly cause: WakeCause
  readonly wokenAt: number
  /** No new hint: it is for those whom an earlier claim of the topic passed over, and nobody else missed anything. */
  readonly catchUp: boolean
  /** In place of the usual statement: one that makes due jobs ready first. */
  readonly claimDue?: (...claim: Parameters<JobStore['claim']>) => Promise<DueClaim>
}

export type Topic = {
  readonly id: TopicId
  readonly name: string
  /** First in, first out: a Set keeps the order of insertion and forgets in O(1). */
  readonly waiters: Set<Waiter>
  /** Those of the waiters that leave after the next claim that comes back short. */
  readonly leaving: Set<Waiter>
  claiming: boolean
  /** A wake that came while a claim was in flight: one more claim follows it. */
  again: Wake | undefined
}

/** Who waits where. A waiter stands in the queue of each topic of its subscription. */
export type WaitingRoom = {
  enter(waiter: Waiter): void
  /** False if the waiter is not, or no longer, here. */
  leave(waiter: Waiter): boolean
  topic(id: TopicId): Topic | undefined
  topics(): Topic[]
  /** A topic stays while anyone waits for it or a claim for it is in flight. */
  forgetIfUnused(topic: Topic): void
  readonly parked: number
  parkedFor(subscription: SubscriptionId): number
}

export function createWaitingRoom(): WaitingRoom {
  const topics = new Map<TopicId, Topic>()
  const perSubscription = new Map<SubscriptionId, number>()
  let parked = 0

  function forgetIfUnused(topic: Topic): void {
    if (topic.waiters.size === 0 && !topic.claiming) topics.delete(topic.id)
  }

  return {
    enter(waiter) {
      const { id, topics: wanted } = waiter.subscription
      waiter.parked = true
      parked += 1
      perSubscription.set(id, (perSubscription.get(id) ?? 0) + 1)
      for (const { id: topicId, name } of wanted) {
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
    },
    leave(waiter) {
      if (!waiter.parked) return false
      waiter.parked = false
      clearDeadline(waiter)
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
    },
    topic: (id) => topics.get(id),
    topics: () => [...topics.values()],
    forgetIfUnused,
    get parked() {
      return parked
    },
    parkedFor: (id) => perSubscription.get(id) ?? 0,
  }
}
