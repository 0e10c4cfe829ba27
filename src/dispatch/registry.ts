import type { Clock, Timer } from '../domain/clock.ts'
import type { WatchStore } from '../domain/ports.ts'
import type { TopicId } from '../domain/types.ts'
import type { ArmedTopic } from './armed-topic.ts'

/** Keeps this gateway's rows of pullgate.armed: one statement under way at a time, since their order matters. */
export type Registry = {
  arm(topic: TopicId): void
  disarm(topic: TopicId): void
  /** Renews what has not been renewed for a while. */
  renew(): void
  /** The rows stay, and end by themselves; an answer that is under way counts for nothing. */
  reset(): void
  settled(): Promise<void>
}

// An arm lasts 30 s (pullgate.arm). A renewal that is answered too late may have found publishers silent.
const renewMs = 10_000
const lapseMs = 25_000
const retryMs = 1_000

export function createRegistry(options: {
  readonly store: Pick<WatchStore, 'arm' | 'disarm'>
  readonly gateway: string
  readonly clock: Clock
  readonly topics: ReadonlyMap<TopicId, ArmedTopic>
  /** Topics are armed of which publishers may have thought otherwise until now. */
  readonly onLapsed: () => void
  readonly onError: (error: unknown) => void
}): Registry {
  const { store, gateway, clock, topics, onLapsed, onError } = options
  const toArm = new Set<TopicId>()
  const toDisarm = new Set<TopicId>()
  let writing: Promise<void> | undefined
  let retry: Timer | undefined

  function write(): void {
    if (retry === undefined) writing ??= writeAll()
  }

  async function writeAll(): Promise<void> {
    // The rest of this turn's topics.
    await Promise.resolve()
    try {
      while (toArm.size + toDisarm.size > 0) {
        if (toDisarm.size > 0) await store.disarm(gateway, take(toDisarm))
        if (toArm.size > 0) await armNow(take(toArm))
      }
    } catch (error) {
      onError(error)
      retry = clock.after(retryMs, () => {
        retry = undefined
        write()
      })
    }
    writing = undefined
  }

  async function armNow(ids: readonly TopicId[]): Promise<void> {
    const asked = ids.flatMap((id) => topics.get(id) ?? [])
    const sentAt = clock.now()
    let fresh: ReadonlySet<TopicId>
    try {
      fresh = new Set(await store.arm(gateway, ids))
    } catch (error) {
      for (const { id } of asked) if (topics.has(id)) toArm.add(id)
      throw error
    }
    const now = clock.now()
    let lapsed = false
    for (const topic of asked) {
      if (topic.armedAt === undefined || fresh.has(topic.id) || now - topic.armedAt > lapseMs) {
        topic.fence = undefined
        topic.fenced = false
        topic.quiet = false
        lapsed = true
      }
      topic.armedAt = sentAt
    }
    if (lapsed) onLapsed()
  }

  return {
    arm(topic) {
      toDisarm.delete(topic)
      toArm.add(topic)
      write()
    },
    disarm(topic) {
      toArm.delete(topic)
      toDisarm.add(topic)
      write()
    },
    renew() {
      const now = clock.now()
      for (const { id, armedAt } of topics.values()) {
        if (armedAt !== undefined && now - armedAt >= renewMs) toArm.add(id)
      }
      if (toArm.size > 0) write()
    },
    reset() {
      toArm.clear()
      toDisarm.clear()
    },
    async settled() {
      retry?.cancel()
      retry = undefined
      if (toArm.size + toDisarm.size > 0) write()
      await writing
    },
  }
}

function take(ids: Set<TopicId>): TopicId[] {
  const all = [...ids]
  ids.clear()
  return all
}
