import type { SubscriptionStore } from '../domain/ports.ts'
import type { Subscription, SubscriptionId } from '../domain/types.ts'

/** Subscriptions that pulls have used. They never change, so a copy can only be wrong in that it has ended: claims see that. */
export type SubscriptionDirectory = {
  /** Undefined if there is none; one that has ended says so. Concurrent look-ups of one id are one statement. */
  find(id: SubscriptionId): Promise<Subscription | undefined>
  forget(ids: readonly SubscriptionId[]): void
  /** Ends of subscriptions may have been missed. */
  forgetAll(): void
  /** Writes down which subscriptions were used since the last call. */
  flush(): Promise<void>
}

const entriesMax = 50_000

export function createSubscriptionDirectory(
  store: Pick<SubscriptionStore, 'read' | 'touch'>,
): SubscriptionDirectory {
  const known = new Map<SubscriptionId, Subscription>()
  const lookups = new Map<SubscriptionId, Promise<Subscription | undefined>>()
  let used = new Set<SubscriptionId>()

  async function look(id: SubscriptionId): Promise<Subscription | undefined> {
    try {
      const subscription = await store.read(id)
      if (subscription !== undefined && subscription.endedAt === null) {
        // The oldest entry makes room; a look-up brings it back.
        const [oldest] = known.keys()
        if (known.size >= entriesMax && oldest !== undefined) known.delete(oldest)
        known.set(id, subscription)
        used.add(id)
      }
      return subscription
    } finally {
      lookups.delete(id)
    }
  }

  return {
    find(id) {
      const subscription = known.get(id)
      if (subscription !== undefined) {
        used.add(id)
        return Promise.resolve(subscription)
      }
      const lookup = lookups.get(id) ?? look(id)
      lookups.set(id, lookup)
      return lookup
    },
    forget(ids) {
      for (const id of ids) known.delete(id)
    },
    forgetAll() {
      known.clear()
    },
    async flush() {
      const ids = [...used]
      used = new Set()
      if (ids.length > 0) await store.touch(ids)
    },
  }
}
