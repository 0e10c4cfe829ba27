import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { QueueStore } from '../domain/ports.ts'
import type { Snapshot, TopicCounts } from '../domain/reads.ts'
import type { Problem } from '../domain/types.ts'
import type { SubscriptionDirectory } from './subscription-directory.ts'

/** Work in the background that nobody waits for: queue counts for metrics, upkeep, last uses of subscriptions. */
export type Upkeep = {
  start(): void
  stop(): Promise<void>
  /**
   * Mends sequences, and looks for what a person should know of. What fails is reported, and tried again in a minute.
   * One check-up runs at a time; a call during a check-up runs another after it, since the server may be another by now.
   */
  checkUp(): Promise<void>
  /** What the last check-up found. */
  problems(): readonly Problem[]
  /** The counts last read, and how old they are now. */
  latest(): (Snapshot & { readonly ageNowSeconds: number }) | undefined
}

// Counting may take a 20th of the time: with few jobs every 5 s, with millions less often.
const snapshotSeconds = 5
const snapshotShare = 20
const upkeepMs = 60_000

export function createUpkeep(options: {
  readonly queue: Pick<QueueStore, 'snapshot' | 'upkeep' | 'mendSequences' | 'doctor'>
  readonly directory: Pick<SubscriptionDirectory, 'flush'>
  readonly clock: Clock
  readonly emit: Emit
}): Upkeep {
  const { queue, directory, clock, emit } = options
  const timers = new Map<string, Timer>()
  const running = new Map<string, Promise<void>>()
  let stopped = true
  let problems: readonly Problem[] = []
  let snapshot: { readonly data: Snapshot; readonly readAt: number } | undefined

  async function attempt(task: string, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (cause) {
      emit({ type: 'upkeep failed', task, error: asError(cause) })
    }
  }

  function repeat(task: string, delayMs: () => number, work: () => Promise<void>): void {
    const next = () => {
      if (stopped) return
      timers.set(task, clock.after(delayMs() * (1 + clock.random() / 10), run))
    }
    const run = () => {
      running.set(task, attempt(task, work).then(next))
    }
    run()
  }

  async function checkUp(): Promise<void> {
    const sequences = await queue.mendSequences()
    if (sequences.length > 0) emit({ type: 'sequences mended', sequences })
    const found = await queue.doctor()
    const known = new Set(problems.map(({ detail }) => detail))
    problems = found
    // Once, and again when it has changed.
    for (const problem of found) if (!known.has(problem.detail)) emit({ type: 'problem found', ...problem })
  }

  let checking: Promise<void> | undefined
  let timesAsked = 0

  async function checkUpWhileAsked(): Promise<void> {
    const before = timesAsked
    await attempt('check-up', checkUp)
    if (timesAsked !== before) return checkUpWhileAsked()
    checking = undefined
  }

  const joinCheckUp = () => (checking ??= checkUpWhileAsked())

  const intervalSeconds = () =>
    Math.max(snapshotSeconds, snapshotShare * (snapshot?.data.durationSeconds ?? 0))

  return {
    start() {
      stopped = false
      repeat(
        'snapshot',
        () => intervalSeconds() * 1000,
        async () => {
          const data = await queue.snapshot(intervalSeconds() * 0.9)
          if (data !== undefined) snapshot = { data, readAt: clock.now() }
        },
      )
      repeat(
        'upkeep',
        () => upkeepMs,
        () => queue.upkeep(),
      )
      repeat('check-up', () => upkeepMs, joinCheckUp)
      repeat(
        'last uses',
        () => upkeepMs,
        () => directory.flush(),
      )
    },
    async stop() {
      stopped = true
      for (const timer of timers.values()) timer.cancel()
      await Promise.all([...running.values(), checking])
      await attempt('last uses', () => directory.flush())
    },
    checkUp() {
      timesAsked += 1
      return joinCheckUp()
    },
    problems: () => problems,
    latest() {
      if (snapshot === undefined) return undefined
      const { data, readAt } = snapshot
      return { ...data, ageNowSeconds: data.ageSeconds + (clock.now() - readAt) / 1000 }
    },
  }
}

/** Looks up one topic's part of the counts. They are grouped once: a filter per topic took seconds for 10,000. */
export function countsByTopic(snapshot: Snapshot): (topic: string) => TopicCounts {
  const byTopic = new Map<string, { jobs: Record<string, number>; oldestReadySeconds: number | null }>()
  for (const { topic, state, jobs, oldestSeconds } of snapshot.counts) {
    const own = byTopic.get(topic) ?? { jobs: {}, oldestReadySeconds: null }
    own.jobs[state] = jobs
    if (state === 'ready') own.oldestReadySeconds = oldestSeconds
    byTopic.set(topic, own)
  }
  return (topic) => byTopic.get(topic) ?? { jobs: {}, oldestReadySeconds: null }
}
