import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { AdvanceResult, LaneMarks, Pair, WatchStore } from '../domain/ports.ts'
import type { TopicId } from '../domain/types.ts'

/**
 * Low-water marks: where this gateway's claims and looks begin, so that they do not walk what is behind them. The
 * argument for their safety is in sql/functions/marks.sql. Losing a mark costs one walk, never a job.
 */
export type Marks = {
  of(topics: readonly TopicId[]): LaneMarks
  /** Nothing falls due up to this instant. */
  readonly dueAfter: string | null
  claimed(topic: TopicId, jobs: number): void
  /** Pulls wait for these topics: their marks are moved if none has been for a while. */
  refresh(topics: readonly TopicId[]): void
  /** Transactions that have stayed open for long, so that the marks move without waiting for them. */
  readonly longTransactions: number
  /** The server may be another one, whose sequence and transaction ids stand elsewhere. */
  forget(): void
  stop(): void
}

// One pair of numbers serves all lanes; a lane with fewer dead entries than jobsMin is walked faster than asked about.
const intervalMs = 100
const jobsMin = 100
const retryMs = 1_000
// A transaction that holds the marks back for longer is left out, and what it leaves behind is seated anew.
const longMs = 1_000
const leftOutMax = 16
const topicsMax = 10_000
const topicsPerStatement = 500
const reseatJobsMax = 500
// Marks are hints as well: whatever should be wrong with one is over after a minute, when all are found anew from nothing.
// Claims go on from those that they have: where a walk takes them half a second, nobody waits for it.
const checkMs = 60_000
const checkShare = 100
// A gateway that claims little walks over what the others have claimed.
const refreshMs = 10_000

const none: LaneMarks = { lanes: [], marks: [] }

export function createMarks(options: {
  readonly store: Pick<WatchStore, 'advanceMarks' | 'reseat'>
  readonly clock: Clock
  readonly emit: Emit
  readonly onReseated: (topics: readonly TopicId[]) => void
}): Marks {
  const { store, clock, emit, onReseated } = options
  const byTopic = new Map<TopicId, Map<string, string>>()
  const dirty = new Set<TopicId>()
  /** With the last seq below which each of them has drawn none. */
  const leftOut = new Map<bigint, bigint>()
  let dueAfter: string | null = null
  let pair: { readonly drawn: Pair; readonly since: number } | null = null
  let passedUpto = 0n
  let passedAt = clock.now()
  let checkedAt = clock.now()
  let checkEveryMs = checkMs
  /** While marks are found anew: of the topics that are left. */
  let unchecked: readonly TopicId[] | undefined
  let claimedJobs = 0
  let reseatFrom: bigint | undefined
  let timer: Timer | undefined
  let advancing = false
  let stopped = false
  let epoch = 0

  function of(topics: readonly TopicId[]): LaneMarks {
    if (byTopic.size === 0) return none
    const all = topics.flatMap((topic) => [...(byTopic.get(topic) ?? [])])
    return { lanes: all.map(([lane]) => lane), marks: all.map(([, mark]) => mark) }
  }

  function schedule(ms: number): void {
    if (stopped || advancing || timer !== undefined) return
    timer = clock.after(ms, () => {
      timer = undefined
      void advance()
    })
  }

  async function advance(): Promise<void> {
    advancing = true
    const begun = epoch
    let pauseMs = intervalMs
    const askedAt = clock.now()
    if (askedAt - checkedAt >= checkEveryMs) unchecked ??= [...byTopic.keys()]
    try {
      const topics = [...new Set([...(unchecked ?? []), ...dirty])].slice(0, topicsPerStatement)
      const result = await store.advanceMarks({
        topics,
        ...(unchecked === undefined ? { marks: of(topics), dueAfter } : { marks: none, dueAfter: null }),
        pair: pair?.drawn ?? null,
        leftOut: [...leftOut.keys()],
      })
      if (begun === epoch) apply(topics, result)
      if (begun === epoch && result.passed !== null) checked(topics, clock.now() - askedAt)
      await reseat(begun)
    } catch (error) {
      checked(unchecked ?? [], clock.now() - askedAt)
      emit({ type: 'upkeep failed', task: 'marks', error: asError(error) })
      pauseMs = retryMs
    }
    advancing = false
    if (claimedJobs >= jobsMin || leftOut.size > 0 || reseatFrom !== undefined) schedule(pauseMs)
  }

  function apply(topics: readonly TopicId[], { passed, pair: drawn, running }: AdvanceResult): void {
    if (drawn.upto < (pair?.drawn.upto ?? passedUpto)) {
      // A sequence only goes back on another server: a standby that was promoted, a restored backup.
      forget()
      return
    }
    const now = clock.now()
    let ended = false
    for (const [id, from] of leftOut) {
      if (running.includes(id)) continue
      leftOut.delete(id)
      ended = true
      if (reseatFrom === undefined || from < reseatFrom) reseatFrom = from
    }
    if (passed !== null) {
      keep(passed)
      passedAt = now
      passedUpto = pair?.drawn.upto ?? passedUpto
      for (const topic of topics) dirty.delete(topic)
      claimedJobs = 0
    } else if (pair !== null && now - pair.since > longMs) {
      for (const id of running) {
        if (leftOut.size < leftOutMax && !leftOut.has(id)) leftOut.set(id, passedUpto)
      }
    }
    // It may have left something to fall due before what was seen here.
    if (ended) dueAfter = null
    if (passed !== null || pair === null) pair = { drawn, since: now }
  }

  function keep({ topics, lanes, marks, dueAfter: upTo }: NonNullable<AdvanceResult['passed']>): void {
    dueAfter = upTo
    topics.forEach((topic, index) => {
      const own = byTopic.get(topic) ?? new Map<string, string>()
      own.set(lanes[index] ?? '', marks[index] ?? '0')
      const [oldest] = byTopic.keys()
      if (byTopic.size >= topicsMax && !byTopic.has(topic) && oldest !== undefined) byTopic.delete(oldest)
      byTopic.set(topic, own)
    })
  }

  /** Of walks from nothing all together take a hundredth of the time. */
  function checked(topics: readonly TopicId[], tookMs: number): void {
    unchecked = unchecked?.filter((topic) => !topics.includes(topic))
    if (unchecked?.length !== 0) return
    unchecked = undefined
    checkedAt = clock.now()
    checkEveryMs = Math.max(checkMs, checkShare * tookMs)
  }

  /** What ended transactions have left below the marks: at most so many jobs a statement, and no locked ones. */
  async function reseat(begun: number): Promise<void> {
    while (reseatFrom !== undefined && begun === epoch && !stopped) {
      const { topics, remaining } = await store.reseat(of([...byTopic.keys()]), reseatFrom, reseatJobsMax)
      onReseated(topics)
      if (begun === epoch && !remaining) reseatFrom = undefined
      else if (topics.length === 0) return
    }
  }

  function forget(): void {
    epoch += 1
    checkedAt = clock.now()
    unchecked = undefined
    byTopic.clear()
    leftOut.clear()
    dueAfter = null
    pair = null
    passedUpto = 0n
    reseatFrom = undefined
  }

  return {
    of,
    get dueAfter() {
      return dueAfter
    },
    claimed(topic, jobs) {
      if (dirty.size < topicsMax) dirty.add(topic)
      claimedJobs += jobs
      if (claimedJobs >= jobsMin) schedule(intervalMs)
    },
    refresh(topics) {
      if (topics.length === 0 || clock.now() - passedAt < refreshMs) return
      passedAt = clock.now()
      for (const topic of topics) if (dirty.size < topicsMax) dirty.add(topic)
      claimedJobs = jobsMin
      schedule(intervalMs)
    },
    get longTransactions() {
      return leftOut.size
    },
    forget,
    stop() {
      stopped = true
      timer?.cancel()
    },
  }
}
