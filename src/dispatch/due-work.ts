import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { DueResult, WatchStore } from '../domain/ports.ts'
import type { TopicId } from '../domain/types.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Marks } from './marks.ts'
import type { Peers } from './peers.ts'
import type { SubscriptionDirectory } from './subscription-directory.ts'

/**
 * What happens because time passes: the backstop that bounds the cost of a lost notification, and one timer on the
 * next due instant (scheduled jobs, lease ends, deadlines), which the backstop's look-ahead sets.
 */
export type DueWork = {
  start(): void
  /** A job that falls due within 2 s was announced: look ahead now. */
  lookAhead(): void
  /** Something falls due in so many milliseconds; the topic that has a ready job then, if that is known. */
  saw(dueInMs: number, topic: TopicId | null): void
  stop(): Promise<void>
}

export type DueWorkOptions = {
  readonly store: Pick<WatchStore, 'runDue' | 'look'>
  readonly marks: Pick<Marks, 'of' | 'dueAfter' | 'refresh'>
  readonly directory: Pick<SubscriptionDirectory, 'forget'>
  readonly peers: Pick<Peers, 'saw'>
  readonly dispatcher: Pick<
    Dispatcher,
    'kick' | 'claimDue' | 'topicsWithWaiters' | 'endSubscriptions' | 'parked'
  >
  readonly clock: Clock
  readonly emit: Emit
  /** Interval while anyone waits; up to a tenth is added, so that gateways do not beat together. */
  readonly backstopMs: number
}

// Leases end and jobs expire also while nobody waits; then there is less of a hurry.
const idleFactor = 5
const dueBatch = 500
// Rows that somebody else has locked stay due; asking for them at once again would be a busy loop.
const fruitlessPauseMs = 25
// pullgate.run_due waits for what falls due within 10 ms, more exactly than a timer here can.
const earlyMs = 5
// A notification under way is no lost one.
const readyMs = 100

export function createDueWork({
  store,
  marks,
  directory,
  peers,
  dispatcher,
  clock,
  emit,
  backstopMs,
}: DueWorkOptions): DueWork {
  let nextBackstop: Timer | undefined
  let nextDue: { readonly at: number; readonly timer: Timer } | undefined
  let looking = false
  let lookAgain: 'ahead' | 'backstop' | undefined
  let ticks = 0
  let running = false
  let stopped = true
  let notBefore = -Infinity
  let onQuiet: (() => void) | undefined

  function failed(task: string, cause: unknown): void {
    emit({ type: 'upkeep failed', task, error: asError(cause) })
  }

  /** Only the backstop asks about ready jobs: one found by looking ahead would count as a wake that was lost. */
  async function look(as: 'ahead' | 'backstop'): Promise<void> {
    if (stopped) return
    if (looking) {
      if (lookAgain !== 'backstop') lookAgain = as
      return
    }
    looking = true
    lookAgain = undefined
    if (as === 'backstop') ticks = 0
    try {
      const topics = as === 'backstop' ? dispatcher.topicsWithWaiters() : []
      const { readyTopics, ended, dueInMs, dueTopic, unlocked } = await store.look({
        ...{ topics, marks: marks.of(topics), dueAfter: marks.dueAfter, readyMs },
        ...{ fence: false, gateways: as === 'backstop' },
      })
      for (const topic of readyTopics) dispatcher.kick(topic, 'backstop')
      directory.forget(ended)
      void dispatcher.endSubscriptions(ended)
      if (as === 'backstop') peers.saw(unlocked)
      marks.refresh(topics)
      if (dueInMs !== null) scheduleDue(dueInMs, dueTopic)
    } catch (error) {
      failed('backstop', error)
    }
    looking = false
    quiet()
    if (as === 'backstop') scheduleBackstop()
    const again = askedAgain()
    if (again !== undefined) void look(again)
  }

  // Read through a function: it changes while a look is awaited.
  function askedAgain(): typeof lookAgain {
    return lookAgain
  }

  function scheduleBackstop(): void {
    if (stopped) return
    nextBackstop?.cancel()
    nextBackstop = clock.after(backstopMs * (1 + clock.random() / 10), () => {
      ticks += 1
      // Asked at each tick: a pull may have come since.
      if (dispatcher.parked > 0 || ticks >= idleFactor) void look('backstop')
      else scheduleBackstop()
    })
  }

  function scheduleDue(inMs: number, topic: TopicId | null): void {
    if (stopped) return
    // Counted from the last run, so that announcements in quick succession do not put it off.
    const at = Math.max(clock.now() + Math.max(0, Math.ceil(inMs) - earlyMs), notBefore)
    // Of two looks under way at once the one that saw less may answer last.
    if (nextDue !== undefined && nextDue.at <= at) return
    nextDue?.timer.cancel()
    const run = () => {
      nextDue = undefined
      void runDue(topic)
    }
    nextDue = { at, timer: clock.after(at - clock.now(), run) }
  }

  /** `first` is the topic whose waiters are claimed for in the same statement, if that keeps nobody waiting. */
  async function runDue(first: TopicId | null): Promise<void> {
    if (running || stopped) return
    running = true
    let pauseMs = fruitlessPauseMs
    try {
      let topic = first
      for (let more = true; more && !isStopped();) {
        const { result, served } = await runOnce(topic)
        topic = null
        more = result.more
        if (more || result.promoted + result.expired + result.leasesChecked > 0) pauseMs = 0
        emit({
          type: 'due',
          promoted: result.promoted,
          expired: result.expired,
          leasesLost: result.leasesLost,
          offersEnded: result.offersEnded,
        })
        if (result.stuck > 0) {
          pauseMs = backstopMs
          failed('due', new Error(`${result.stuck} due jobs can neither be processed nor set aside`))
        }
        for (const ready of result.topics) if (ready !== served) dispatcher.kick(ready, 'due')
      }
    } catch (error) {
      pauseMs = backstopMs
      failed('due', error)
    }
    notBefore = clock.now() + pauseMs
    running = false
    quiet()
    // When the next instant is, only the database knows.
    void look('ahead')
  }

  /** `served`: the topic that has been claimed for, and whose further jobs are the dispatcher's to claim. */
  async function runOnce(
    topic: TopicId | null,
  ): Promise<{ readonly result: DueResult; readonly served: TopicId | null }> {
    const { dueAfter } = marks
    const claim = topic === null ? undefined : dispatcher.claimDue(topic, dueBatch, dueAfter)
    if (claim === undefined) return { result: await store.runDue(dueBatch, dueAfter), served: null }
    return { result: (await claim).due, served: topic }
  }

  // Read through a function: the flag changes while a statement is awaited.
  function isStopped(): boolean {
    return stopped
  }

  function quiet(): void {
    if (stopped && !looking && !running) onQuiet?.()
  }

  return {
    start() {
      stopped = false
      void look('backstop')
    },
    lookAhead: () => void look('ahead'),
    saw: scheduleDue,
    stop() {
      stopped = true
      nextBackstop?.cancel()
      nextDue?.timer.cancel()
      if (!looking && !running) return Promise.resolve()
      return new Promise((resolve) => (onQuiet = resolve))
    },
  }
}
