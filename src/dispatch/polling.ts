import type { Clock, Timer } from '../domain/clock.ts'
import type { TopicId } from '../domain/types.ts'

/**
 * Interrupts when idle, polling when busy, as network drivers do. A NOTIFY costs its publisher the commit lock of the
 * whole cluster, so there is one budget for all that is heard. A topic whose notification goes beyond it becomes
 * *hot*: it is disarmed, and claimed on a short tick, one statement for all hot topics, until ticks have found nothing
 * for a while. The more a topic notifies, the likelier it is the one to go beyond.
 *
 * Where notifications are not heard at all, every topic that is waited for is polled, on ticks that may grow longer.
 */
export type Polling = {
  /** For a notification that was heard: whether the budget allowed for it, or even a second burst is used up. */
  spend(): 'within' | 'beyond' | 'flood'
  heat(topic: TopicId): void
  isHot(topic: TopicId): boolean
  /** A hot topic whose last claim found less than was wanted: the next tick is soon enough for whoever comes. */
  isDry(topic: TopicId): boolean
  claimed(topic: TopicId, claim: { readonly jobs: number; readonly short: boolean }): void
  readonly hot: number
  /** From now on topics stay hot while they are waited for. */
  everything(): void
  /** Forgets all hot topics, and `everything`. */
  reset(): void
}

// NOTIFYs per second that publishers do not feel: of 3,600 commits/s from 32 connections 75 or 150 with a NOTIFY made no
// difference (1.04, 1.03 of the rate without), one in each left 0.18 of it (medians of three, 2 cores, fsync on).
const budgetPerSecond = 100
const burst = 20
// Ticks are close while they find something, and grow apart with the time since: a quarter of it.
const tickMinMs = 2
const tickMaxMs = 10
// Of a gateway that hears nothing: what a job costs that comes after a pause.
const everythingTickMaxMs = 200
const tickPart = 4
// Few topics are claimed at once: a claim under way is not doubled, and its batch grows with its duration by itself. Of
// many, one look finds those that have something: a claim each for 1,000 topics took the gateway several times as long
// as the look takes Postgres (3.5 ms).
const claimedTopicsMax = 8
// Looks take at most a third of the time, whatever they cost.
const lookShare = 3
// Longer than the pauses of a bursty publisher: each time a topic is armed costs the registry a row.
const coolMs = 2_000
// Jobs that fall due within 2 s are not announced for hot topics.
const lookAheadMs = 100

export function createPolling(options: {
  readonly clock: Clock
  readonly kick: (topic: TopicId) => void
  /** Which of the topics have ready jobs. */
  readonly look: (topics: readonly TopicId[]) => Promise<readonly TopicId[]>
  readonly isWaitedFor: (topic: TopicId) => boolean
  readonly lookAhead: () => void
  readonly onError: (error: unknown) => void
}): Polling {
  const { clock, kick, look, isWaitedFor, lookAhead, onError } = options
  const topics = new Map<TopicId, { foundAt: number; dry: boolean }>()
  let tokens = burst
  let filledAt = clock.now()
  let lookMs = 0
  let foundAt = -Infinity
  let lookedAt = 0
  let timer: Timer | undefined
  let all = false

  function tick(): void {
    timer = undefined
    const now = clock.now()
    for (const [topic, hot] of topics) {
      if (all ? isWaitedFor(topic) : now - hot.foundAt < coolMs) continue
      topics.delete(topic)
      // Its next claim that comes back short arms it.
      kick(topic)
    }
    if (topics.size === 0) return
    if (now - lookedAt >= lookAheadMs) {
      lookedAt = now
      lookAhead()
    }
    const waited = [...topics.keys()].filter(isWaitedFor)
    if (waited.length > claimedTopicsMax) {
      void kickReady(waited)
      return
    }
    lookMs = 0
    for (const topic of waited) kick(topic)
    schedule()
  }

  async function kickReady(waited: readonly TopicId[]): Promise<void> {
    const sentAt = clock.now()
    try {
      const ready = new Set(await look(waited))
      for (const topic of waited) {
        const hot = topics.get(topic)
        if (hot !== undefined) hot.dry = !ready.has(topic)
        if (ready.has(topic)) kick(topic)
      }
    } catch (error) {
      onError(error)
    }
    const ms = clock.now() - sentAt
    lookMs = lookMs === 0 ? ms : 0.9 * lookMs + 0.1 * ms
    schedule()
  }

  function schedule(): void {
    if (topics.size === 0) return
    const maxMs = all ? everythingTickMaxMs : tickMaxMs
    const pauseMs = Math.min(maxMs, Math.max(tickMinMs, (clock.now() - foundAt) / tickPart))
    timer ??= clock.after(Math.max(pauseMs, (lookShare - 1) * lookMs), tick)
  }

  return {
    spend() {
      const now = clock.now()
      tokens = Math.min(burst, tokens + ((now - filledAt) / 1000) * budgetPerSecond)
      filledAt = now
      tokens = Math.max(-burst, tokens - 1)
      if (tokens >= 0) return 'within'
      return tokens > -burst ? 'beyond' : 'flood'
    },
    heat(topic) {
      const now = clock.now()
      // Else it was a claim that found nothing.
      if (!all) foundAt = now
      topics.set(topic, { foundAt: now, dry: false })
      schedule()
    },
    isHot: (topic) => topics.has(topic),
    isDry: (topic) => !all && topics.get(topic)?.dry === true,
    claimed(topic, { jobs, short }) {
      const hot = topics.get(topic)
      if (hot === undefined) return
      hot.dry = short
      if (jobs === 0) return
      foundAt = clock.now()
      hot.foundAt = foundAt
      if (!all || timer === undefined) return
      // The next tick was set when there was nothing.
      timer.cancel()
      timer = undefined
      schedule()
    },
    get hot() {
      return topics.size
    },
    everything() {
      all = true
    },
    reset() {
      all = false
      topics.clear()
      timer?.cancel()
      timer = undefined
    },
  }
}
