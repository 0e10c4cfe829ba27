import type { Clock } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { Claim, DueClaim } from '../domain/ports.ts'
import type { SubscriptionId, TopicId, WakeCause } from '../domain/types.ts'
import type { Arming } from './arming.ts'
import type { Claiming } from './claiming.ts'
import { createDeadlines } from './deadlines.ts'
import type { Deliveries } from './deliveries.ts'
import { assign, passOver, reserve, toSlots } from './hand-out.ts'
import type { Marks } from './marks.ts'
import type { Waiter } from './waiter.ts'
import { createWaitingRoom } from './waiting-room.ts'
import type { Topic, Wake } from './waiting-room.ts'

/** Jobs per claim statement. Above about 100 a longer batch gains little and delays the first of it. */
export const claimJobsMax = 200

export type Dispatcher = {
  /**
   * Parks the waiter, then kicks its topics: in this order a job that commits in between is not missed. Topics of
   * which it is known that nothing is ready, and that a job to come will kick them, are left alone. It is answered within `waitMs`, or, while a claim counts on it, by that claim; 0 is one try on each of its topics.
   */
  park(waiter: Waiter, waitMs: number): void
  /** The client has left. False if the waiter had been answered already. */
  leave(waiter: Waiter): boolean
  kick(topic: TopicId, cause: WakeCause): 'woke' | 'idle'
  kickAll(cause: WakeCause): void
  /**
   * Runs due work and claims for the topic in one statement. It may wait for its instant, and no other claim of the topic
   * begins meanwhile; so it is only asked where nothing is ready, and no claim in flight, for pulls that are parked:
   * otherwise undefined. Resolves once the jobs were handed out; rejects with the statement's error.
   */
  claimDue(topic: TopicId, limit: number, dueAfter: string | null): Promise<DueClaim> | undefined
  /** Answers the pulls of subscriptions that ended; resolves when all have been, also those that a claim counts on. */
  endSubscriptions(ids: readonly SubscriptionId[]): Promise<void>
  readonly parked: number
  parkedFor(subscription: SubscriptionId): number
  /** By the names of the topics that anyone waits for. */
  parkedByTopic(): ReadonlyMap<string, number>
  topicsWithWaiters(): TopicId[]
  isWaitedFor(topic: TopicId): boolean
  /** No claim begins from now on; resolves when those in flight have been handed out. */
  stopClaiming(): Promise<void>
  /** Answers every parked pull, spread over `spreadMs`; resolves when all have been. */
  answerAll(spreadMs: number): Promise<void>
}

export type DispatcherOptions = {
  readonly store: Claiming
  /** Kicks do nothing while false; a kick of all topics follows. */
  readonly mayClaim: () => boolean
  readonly deliveries: Pick<Deliveries, 'giveBack'>
  readonly marks: Pick<Marks, 'of' | 'claimed'>
  readonly arming: Pick<Arming, 'claimed' | 'covers'>
  readonly clock: Clock
  readonly emit: Emit
}

/**
 * One claim serves all waiters: per topic at most one is in flight, for as many jobs as its live waiters want.
 * Everything that may mean work is a kick; what a kick finds is the claim's to say.
 */
export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { store, mayClaim, deliveries, marks, arming, clock, emit } = options
  const room = createWaitingRoom()
  const deadlines = createDeadlines(clock, endWait)
  let draining = false
  let claimsInFlight = 0
  let onQuiet: (() => void) | undefined
  const onUnreserved: (() => void)[] = []

  function park(waiter: Waiter, waitMs: number): void {
    if (draining) {
      waiter.answer({ kind: 'draining' })
      return
    }
    room.enter(waiter)
    const ids = waiter.subscription.topics.map((topic) => topic.id)
    if (waitMs > 0) deadlines.set(waiter, waitMs)
    else leaveAfterTries(waiter, ids)
    for (const topicId of ids) {
      // One that wants a try gets it: a notification may be on its way.
      if (waitMs > 0 && arming.covers(topicId)) waiter.tried = true
      else kick(topicId, 'arrival')
    }
  }

  function endWait(waiter: Waiter): void {
    if (waiter.reservedBy !== undefined) leaveAfterTries(waiter, [waiter.reservedBy])
    else if (room.leave(waiter)) waiter.answer({ kind: 'empty' })
  }

  function leaveAfterTries(waiter: Waiter, ids: readonly TopicId[]): void {
    waiter.lastTries = new Set(ids)
    for (const id of ids) room.topic(id)?.leaving.add(waiter)
  }

  function kick(topicId: TopicId, cause: WakeCause): 'woke' | 'idle' {
    const topic = room.topic(topicId)
    if (topic === undefined || topic.waiters.size === 0 || draining || !mayClaim()) return 'idle'
    // The next tick is not far.
    if (cause === 'tick' && topic.claiming) return 'idle'
    emit({ type: 'wake', cause })
    claimSoon(topic, { cause, wokenAt: clock.now(), catchUp: false })
    return 'woke'
  }

  function claimSoon(topic: Topic, wake: Wake): void {
    if (!topic.claiming) void claimUntilServed(topic, wake)
    else if (topic.again === undefined || (topic.again.catchUp && !wake.catchUp)) topic.again = wake
  }

  async function claimUntilServed(topic: Topic, first: Wake): Promise<void> {
    topic.claiming = true
    claimsInFlight += 1
    let next: Wake | undefined = first
    while (next !== undefined && !draining && mayClaim()) {
      topic.again = undefined
      // Whoever comes while the claim is under way is served by the one that follows.
      const tried = new Set(topic.leaving)
      const { reserved, result } = await claimOnce(topic, next, tried)
      for (const waiter of reserved) if (topic.leaving.has(waiter)) tried.add(waiter)
      if (result === 'short') endTries(topic, tried)
      unreserve(reserved)
      if (result === 'full') claimSoon(topic, { cause: 'backlog', wokenAt: clock.now(), catchUp: false })
      next = wokenMeanwhile(topic)
    }
    topic.claiming = false
    claimsInFlight -= 1
    room.forgetIfUnused(topic)
    if (claimsInFlight === 0) onQuiet?.()
  }

  // Read through a function: kicks set it while the claim is awaited.
  function wokenMeanwhile(topic: Topic): Topic['again'] {
    return topic.again
  }

  /** The claim came back short: the topic had nothing for those who wanted no more than a try. */
  function endTries(topic: Topic, tried: Iterable<Waiter>): void {
    for (const waiter of tried) {
      if (waiter.reservedBy !== undefined && waiter.reservedBy !== topic.id) {
        // A claim of another topic counts on it; this topic is tried again after that one.
        passOver(waiter, topic.id)
        continue
      }
      topic.leaving.delete(waiter)
      waiter.lastTries?.delete(topic.id)
      if (waiter.lastTries?.size === 0 && room.leave(waiter)) waiter.answer({ kind: 'empty' })
    }
  }

  /** `full`: the claim found all that the living asked for, so that more may be waiting. */
  async function claimOnce(
    topic: Topic,
    { cause, wokenAt, catchUp, claimDue }: Wake,
    tried: Iterable<Waiter>,
  ): Promise<{ readonly reserved: readonly Waiter[]; readonly result: 'full' | 'short' | 'failed' }> {
    const reserved = reserve(topic, claimJobsMax, catchUp)
    const slots = toSlots(reserved)
    if (slots.length === 0) return { reserved, result: 'short' }
    const startedAt = clock.now()
    const seconds = (waitedMs = 0) => Math.max(0, clock.now() - startedAt - waitedMs) / 1000
    try {
      const claim = await (claimDue ?? store.claim)(topic, slots, marks.of([topic.id]))
      const waitedMs = claim.due?.waitedMs ?? 0
      emit({ type: 'claim', cause, topic: topic.name, jobs: claim.jobs.length, seconds: seconds(waitedMs) })
      for (const waiter of reserved) waiter.tried = true
      handOut(topic, reserved, claim, Math.min(clock.now(), wokenAt + waitedMs))
      const asked = slots.reduce(
        (sum, { jobs }, slot) => (claim.endedSlots.includes(slot) ? sum : sum + jobs),
        0,
      )
      const result = claim.jobs.length === asked ? 'full' : 'short'
      if (claim.jobs.length > 0) marks.claimed(topic.id, claim.jobs.length)
      arming.claimed(topic.id, {
        startedAt,
        jobs: claim.jobs.length,
        result: claim.left ? 'left' : result,
        waiting: topic.waiters.size > topic.leaving.size,
      })
      return { reserved, result }
    } catch (error) {
      emit({
        type: 'claim failed',
        topic: topic.name,
        seconds: seconds(),
        error: asError(error),
      })
      // Those who were parked before stay: resync and backstop come when the database does. Those who wanted one try
      // have had it, also where the claim had no room for them: a claim for them at once would fail as well.
      for (const waiter of new Set([...reserved, ...tried])) {
        if (waiter.reservedBy !== undefined && waiter.reservedBy !== topic.id) passOver(waiter, topic.id)
        else if ((waiter.tried || claimDue !== undefined) && !topic.leaving.has(waiter)) continue
        else if (room.leave(waiter)) waiter.answer({ kind: 'error', error })
      }
      return { reserved, result: 'failed' }
    }
  }

  /** What is not with a waiter at its end goes back, also when it ends by an exception. */
  function handOut(topic: Topic, reserved: readonly Waiter[], claim: Claim, wokenAt: number): void {
    const remaining = new Set(claim.jobs.map(({ job }) => job))
    try {
      for (const { readySeconds } of remaining) emit({ type: 'job claimed', topic: topic.name, readySeconds })
      const { shares, ended } = assign(topic, reserved, claim)
      for (const [waiter, jobs] of shares) {
        for (const job of jobs) remaining.delete(job)
        room.leave(waiter)
        waiter.answer({ kind: 'jobs', jobs, wokenAt })
      }
      for (const waiter of ended) if (room.leave(waiter)) waiter.answer({ kind: 'ended' })
    } finally {
      if (remaining.size > 0) deliveries.giveBack([...remaining])
    }
  }

  function unreserve(reserved: readonly Waiter[]): void {
    const missed = new Set<TopicId>()
    for (const resolve of onUnreserved.splice(0)) resolve()
    for (const waiter of reserved) {
      const { passedOver = [], lastTries } = waiter
      waiter.reservedBy = undefined
      if (waiter.ended && room.leave(waiter)) waiter.answer({ kind: 'ended' })
      for (const id of passedOver) if (waiter.parked && (lastTries?.has(id) ?? true)) missed.add(id)
    }
    for (const id of missed) {
      const topic = room.topic(id)
      if (topic !== undefined && !draining) {
        claimSoon(topic, { cause: 'arrival', wokenAt: clock.now(), catchUp: true })
      }
    }
  }

  return {
    park,
    leave: room.leave,
    kick,
    kickAll(cause) {
      for (const { id } of room.topics()) kick(id, cause)
    },
    claimDue(topicId, limit, dueAfter) {
      const topic = room.topic(topicId)
      if (topic === undefined || topic.claiming || !arming.covers(topicId)) return undefined
      let asked: Promise<DueClaim> | undefined
      void claimUntilServed(topic, {
        ...{ cause: 'due', wokenAt: clock.now(), catchUp: false },
        claimDue(...claim) {
          emit({ type: 'wake', cause: 'due' })
          // The dispatcher awaits it first, and hands out before whoever asked goes on.
          asked = store.claimDue(limit, dueAfter, ...claim)
          return asked
        },
      })
      return asked
    },
    async endSubscriptions(ids) {
      const gone = new Set(ids.filter((id) => room.parkedFor(id) > 0))
      if (gone.size === 0) return
      for (const topic of room.topics()) {
        for (const waiter of topic.waiters) {
          if (!gone.has(waiter.subscription.id)) continue
          // A claim that counts on it may have been made before the end: it serves the waiter, or nobody does.
          waiter.ended = true
          if (waiter.reservedBy === undefined && room.leave(waiter)) waiter.answer({ kind: 'ended' })
        }
      }
      while (!draining && [...gone].some((id) => room.parkedFor(id) > 0)) {
        await new Promise<void>((resolve) => onUnreserved.push(resolve))
      }
    },
    get parked() {
      return room.parked
    },
    parkedFor: room.parkedFor,
    parkedByTopic: () => new Map(room.topics().map(({ name, waiters }) => [name, waiters.size])),
    isWaitedFor: (id) => (room.topic(id)?.waiters.size ?? 0) > 0,
    topicsWithWaiters: () => room.topics().flatMap(({ id, waiters }) => (waiters.size > 0 ? [id] : [])),
    stopClaiming() {
      draining = true
      if (claimsInFlight === 0) return Promise.resolve()
      return new Promise((resolve) => (onQuiet = resolve))
    },
    async answerAll(spreadMs) {
      const waiting = new Set(room.topics().flatMap((topic) => [...topic.waiters]))
      const answers = [...waiting].map(
        (waiter) =>
          new Promise<void>((resolve) => {
            clock.after(clock.random() * spreadMs, () => {
              if (room.leave(waiter)) waiter.answer({ kind: 'draining' })
              resolve()
            })
          }),
      )
      await Promise.all(answers)
    },
  }
}
