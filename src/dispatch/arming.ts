import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { LookResult, WatchStore } from '../domain/ports.ts'
import type { TopicId, WakeCause } from '../domain/types.ts'
import type { ArmedTopic, DueHints } from './armed-topic.ts'
import { createFence } from './fence.ts'
import type { Marks } from './marks.ts'
import { createPolling } from './polling.ts'
import { createRegistry } from './registry.ts'

export type ClaimReport = {
  readonly startedAt: number
  readonly jobs: number
  readonly result: 'full' | 'short' | 'left'
  /** Whether pulls still wait for the topic. */
  readonly waiting: boolean
}

/**
 * Which topics publishers notify for. A topic is *armed* when a claim for pulls that go on waiting came back short;
 * *fenced* once nothing can be left that was published in silence before (src/dispatch/fence.ts); *quiet* while besides
 * every notification since has been followed by a claim that came back short. A busy topic is polled instead
 * (src/dispatch/polling.ts).
 */
export type Arming = {
  claimed(topic: TopicId, report: ClaimReport): void
  /**
   * False: the topic is polled, and need not be kicked. A job that was announced to fall `due` leaves a topic quiet: it
   * is not ready yet, and notified of again when it is.
   */
  notified(topic: TopicId, what: 'ready' | 'due'): boolean
  /** Whether a job that becomes ready will kick the topic by itself, and none is ready: a pull may wait without a claim. */
  covers(topic: TopicId): boolean
  /** Notifications are heard from now on: what was armed before counts for nothing. */
  listening(): void
  /** Notifications are not heard any more; with `poll`, for long: what is waited for is polled instead. */
  deaf(poll: boolean): void
  readonly armed: number
  /** Those of the armed that are looked at until older transactions have ended. */
  readonly unfenced: number
  readonly polled: number
  stop(): Promise<void>
}

// An arm is kept for a while when nobody waits: a registry row written at every edge would bloat what publishers read.
const keepMs = 2_000
const sweepMs = 1_000

export function createArming(options: {
  readonly store: Pick<WatchStore, 'arm' | 'disarm' | 'look'>
  /** Names this gateway's rows in the registry; another one at each start. */
  readonly gateway: string
  readonly marks: Pick<Marks, 'of' | 'dueAfter'>
  readonly clock: Clock
  readonly emit: Emit
  readonly kick: (topic: TopicId, cause: WakeCause) => void
  readonly isWaitedFor: (topic: TopicId) => boolean
  readonly dueWork: DueHints
}): Arming {
  const { store, gateway, marks, clock, emit, kick, isWaitedFor, dueWork } = options
  const topics = new Map<TopicId, ArmedTopic>()
  let hearing = false
  let pollsAll = false
  let sweep: Timer | undefined

  const failed = (task: string) => (cause: unknown) =>
    emit({ type: 'upkeep failed', task, error: asError(cause) })
  const look = async (ids: readonly TopicId[], drawFence: boolean): Promise<LookResult> => {
    const { dueAfter } = marks
    const query = {
      topics: ids,
      marks: marks.of(ids),
      dueAfter,
      readyMs: 0,
      fence: drawFence,
      gateways: false,
    }
    const result = await store.look(query)
    if (result.dueInMs !== null) dueWork.saw(result.dueInMs, result.dueTopic)
    return result
  }
  const fence = createFence({
    ...{ look, clock, topics, kick, isWaitedFor },
    onError: failed('fence'),
  })
  const registry = createRegistry({
    ...{ store, gateway, clock, topics },
    onLapsed: fence.probe,
    onError: failed('arming'),
  })
  const polling = createPolling({
    clock,
    kick: (topic) => kick(topic, 'tick'),
    look: async (ids) => (await look(ids, false)).readyTopics,
    isWaitedFor,
    lookAhead: dueWork.lookAhead,
    onError: failed('polling'),
  })

  function claimed(id: TopicId, { startedAt, jobs, result, waiting }: ClaimReport): void {
    if (polling.isHot(id)) {
      polling.claimed(id, { jobs, short: result !== 'full' })
      return
    }
    if (pollsAll && waiting) polling.heat(id)
    if (!hearing) return
    const topic = topics.get(id)
    if (result === 'full') {
      if (topic !== undefined) topic.quiet = false
      return
    }
    if (!waiting) return
    if (topic === undefined) {
      arm(id)
      return
    }
    if (topic.armedAt === undefined) return
    if (result === 'left' && topic.fenced) {
      topic.fenced = false
      fence.probe()
    } else if (!topic.fenced) fence.resume()
    topic.quiet = topic.fenced && topic.notifiedAt < startedAt
  }

  function arm(id: TopicId): void {
    topics.set(id, {
      id,
      armedAt: undefined,
      fence: undefined,
      fenced: false,
      quiet: false,
      notifiedAt: -Infinity,
      lonelySince: undefined,
    })
    registry.arm(id)
    sweep ??= clock.after(sweepMs, tidy)
  }

  function release(id: TopicId): void {
    topics.delete(id)
    registry.disarm(id)
  }

  function heat(id: TopicId): void {
    if (!topics.has(id) || !isWaitedFor(id)) return
    release(id)
    polling.heat(id)
  }

  function tidy(): void {
    sweep = undefined
    const now = clock.now()
    for (const topic of topics.values()) {
      topic.lonelySince = isWaitedFor(topic.id) ? undefined : (topic.lonelySince ?? now)
      if (topic.lonelySince !== undefined && now - topic.lonelySince >= keepMs) release(topic.id)
    }
    registry.renew()
    if (topics.size > 0) sweep = clock.after(sweepMs, tidy)
  }

  function forget(): void {
    topics.clear()
    registry.reset()
    polling.reset()
  }

  return {
    claimed,
    notified(id, what) {
      const topic = topics.get(id)
      if (topic !== undefined && what === 'ready') {
        topic.notifiedAt = clock.now()
        topic.quiet = false
      }
      const spent = polling.spend()
      // Many topics that notify a little each: one after the other would take a notification of every one.
      if (spent === 'flood') for (const armed of [...topics.keys()]) heat(armed)
      else if (spent === 'beyond') heat(id)
      return !polling.isHot(id)
    },
    covers: (id) => topics.get(id)?.quiet === true || polling.isDry(id),
    listening() {
      forget()
      hearing = true
      pollsAll = false
    },
    deaf(poll) {
      forget()
      hearing = false
      pollsAll = poll
      if (poll) polling.everything()
    },
    get armed() {
      return topics.size
    },
    get unfenced() {
      return [...topics.values()].filter(({ fenced }) => !fenced).length
    },
    get polled() {
      return polling.hot
    },
    async stop() {
      hearing = false
      pollsAll = false
      sweep?.cancel()
      fence.stop()
      polling.reset()
      for (const id of [...topics.keys()]) release(id)
      await registry.settled()
    },
  }
}
