import type { Clock, Timer } from '../domain/clock.ts'
import type { LookResult } from '../domain/ports.ts'
import type { TopicId, WakeCause } from '../domain/types.ts'
import type { ArmedTopic } from './armed-topic.ts'

/**
 * Closes the gap between a claim that found nothing and an arm that publishers see: looks at armed topics until every
 * transaction that could have published in silence has ended and no ready job is visible. One that is visible is
 * claimed; one that stays visible is locked by another claim, which may yet roll back.
 */
export type Fence = {
  /** A topic has been armed, or a claim has left something ready: look at once. */
  probe(): void
  /** Pulls wait again for a topic that is not fenced. */
  resume(): void
  stop(): void
}

// At once, then after 2, 4, 8 … 250 ms: with no publisher in flight the first look closes the fence.
const firstPauseMs = 2
const pauseMaxMs = 250

export function createFence(options: {
  readonly look: (topics: readonly TopicId[], drawFence: boolean) => Promise<LookResult>
  readonly clock: Clock
  readonly topics: ReadonlyMap<TopicId, ArmedTopic>
  readonly kick: (topic: TopicId, cause: WakeCause) => void
  readonly isWaitedFor: (topic: TopicId) => boolean
  readonly onError: (error: unknown) => void
}): Fence {
  const { look, clock, topics, kick, isWaitedFor, onError } = options
  let timer: Timer | undefined
  let pauseMs = 0
  let looking = false
  let again = false
  let stopped = false

  /** Where nobody waits any more the next claim that comes back short goes on. */
  const open = () =>
    [...topics.values()].filter(
      ({ id, fenced, armedAt }) => !fenced && armedAt !== undefined && isWaitedFor(id),
    )

  function schedule(): void {
    if (stopped || looking || timer !== undefined) return
    timer = clock.after(pauseMs, () => {
      timer = undefined
      void probeOnce()
    })
  }

  async function probeOnce(): Promise<void> {
    const unfenced = open()
    if (unfenced.length === 0) return
    looking = true
    again = false
    const asked = unfenced.map((topic) => ({ topic, armedAt: topic.armedAt }))
    const ids = unfenced.map(({ id }) => id)
    const sentAt = clock.now()
    try {
      const drawFence = unfenced.some((topic) => topic.fence === undefined)
      const { readyTopics, horizon, fence } = await look(ids, drawFence)
      const ready = new Set(readyTopics)
      for (const { topic, armedAt } of asked) {
        // Armed anew meanwhile, perhaps since the arm had lapsed: this look came too early for it.
        if (topic.armedAt !== armedAt) continue
        topic.fence ??= fence ?? undefined
        if (ready.has(topic.id)) kick(topic.id, 'fence')
        else close(topic, horizon, sentAt)
      }
    } catch (error) {
      onError(error)
    }
    looking = false
    pauseMs = askedAgain() ? 0 : Math.min(pauseMaxMs, Math.max(firstPauseMs, 2 * pauseMs))
    if (open().length > 0) schedule()
  }

  // Read through a function: it changes while the look is awaited.
  function askedAgain(): boolean {
    return again
  }

  function close(topic: ArmedTopic, horizon: bigint, sentAt: number): void {
    if (topic.fence === undefined || horizon < topic.fence) return
    topic.fenced = true
    topic.quiet = topic.notifiedAt < sentAt
  }

  return {
    probe() {
      again = true
      if (pauseMs > 0) {
        pauseMs = 0
        timer?.cancel()
        timer = undefined
      }
      schedule()
    },
    resume: schedule,
    stop() {
      stopped = true
      timer?.cancel()
    },
  }
}
