import type { Clock, Timer } from '../domain/clock.ts'
import type { TopicId } from '../domain/types.ts'

/**
 * Interrupts when idle, polling when busy, as network drivers do. A NOTIFY costs its publisher the commit lock of the
 * whole cluster, so there is one budget for all that is heard. A topic whose notification goes beyond it becomes
 * *hot*: it is disarmed, and claimed on a short tick, one statement for all hot topics, until ticks have found nothing
 * for a while. The more a topic notifies, the likelier it is the one to go beyond.
 */
export type Polling = {
  /** Whether the budget still allowed for it. */
  spend(): boolean
  heat(topic: TopicId): void
  isHot(topic: TopicId): boolean
  /** A hot topic whose last claim found less than was wanted: the next tick is soon enough for whoever comes. */
  isDry(topic: TopicId): boolean
  claimed(
    topic: TopicId,
    claim: { readonly jobs: number; readonly short: boolean; readonly ms: number },
  ): void
  readonly hot: number
  /** Forgets all hot topics. */
  reset(): void
}

// NOTIFYs per second that publishers do not feel: at 200/s the commit lock is held for a few hundredths of the time.
const budgetPerSecond = 100
const burst = 20
// Ticks follow a claim that found something closely, and grow apart while they find nothing.
const tickMinMs = 2
const tickMaxMs = 10
const tickGrowth = 1.5
// Of the time, claims for ticks take at most a third, whatever they cost.
const tickShare = 3
// Longer than the pauses of a bursty publisher: each time a topic is armed costs the registry a row.
const coolMs = 2_000
// Jobs that fall due within 2 s are not announced for hot topics.
const lookAheadMs = 100

export function createPolling(options: {
  readonly clock: Clock
  readonly kick: (topic: TopicId) => void
  /** Ticks found nothing for long enough. */
  readonly onCool: (topic: TopicId) => void
  readonly lookAhead: () => void
}): Polling {
  const { clock, kick, onCool, lookAhead } = options
  const topics = new Map<TopicId, { foundAt: number; dry: boolean }>()
  let tokens = burst
  let filledAt = clock.now()
  let tickMs = tickMinMs
  let claimMs = 0
  let foundInTick = false
  let lookedAt = 0
  let timer: Timer | undefined

  function tick(): void {
    timer = undefined
    const now = clock.now()
    for (const [topic, { foundAt }] of topics) {
      if (now - foundAt < coolMs) continue
      topics.delete(topic)
      onCool(topic)
    }
    if (topics.size === 0) return
    if (now - lookedAt >= lookAheadMs) {
      lookedAt = now
      lookAhead()
    }
    tickMs = foundInTick ? tickMinMs : Math.min(tickMaxMs, tickMs * tickGrowth)
    foundInTick = false
    for (const topic of topics.keys()) kick(topic)
    schedule()
  }

  function schedule(): void {
    if (topics.size > 0) timer ??= clock.after(Math.max(tickMs, tickShare * claimMs), tick)
  }

  return {
    spend() {
      const now = clock.now()
      tokens = Math.min(burst, tokens + ((now - filledAt) / 1000) * budgetPerSecond)
      filledAt = now
      if (tokens < 1) return false
      tokens -= 1
      return true
    },
    heat(topic) {
      topics.set(topic, { foundAt: clock.now(), dry: false })
      tickMs = tickMinMs
      schedule()
    },
    isHot: (topic) => topics.has(topic),
    isDry: (topic) => topics.get(topic)?.dry === true,
    claimed(topic, { jobs, short, ms }) {
      const hot = topics.get(topic)
      if (hot === undefined) return
      hot.dry = short
      claimMs = claimMs === 0 ? ms : 0.9 * claimMs + 0.1 * ms
      if (jobs === 0) return
      hot.foundAt = clock.now()
      foundInTick = true
    },
    get hot() {
      return topics.size
    },
    reset() {
      topics.clear()
      timer?.cancel()
      timer = undefined
    },
  }
}
