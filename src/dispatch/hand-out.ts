import type { Claim, Slot } from '../domain/ports.ts'
import type { ClaimedJob, TopicId } from '../domain/types.ts'
import type { Waiter } from './waiter.ts'

type Queue = { readonly id: TopicId; readonly waiters: ReadonlySet<Waiter> }

/** Another topic's claim counts on the waiter: this topic is kicked again when that claim has ended. */
export function passOver(waiter: Waiter, topic: TopicId): void {
  waiter.passedOver ??= new Set()
  waiter.passedOver.add(topic)
}

/**
 * The waiters that the next claim is for, first in, first out, up to `jobsMax` jobs. One that counts on another
 * topic's claim remembers that this topic wanted it, until one of this topic counts on it. The last one may be left
 * out of a claim that is nearly full: a waiter's share is never split over two claims. A claim that only catches up
 * is for those whom it is owed to, and adds nobody to them: two topics would kick each other for ever.
 */
export function reserve(topic: Queue, jobsMax: number, catchUp = false): Waiter[] {
  const reserved: Waiter[] = []
  let jobs = 0
  for (const waiter of topic.waiters) {
    if (!waiter.isLive() || waiter.lastTries?.has(topic.id) === false) continue
    if (waiter.reservedBy !== undefined) {
      if (!catchUp) passOver(waiter, topic.id)
      continue
    }
    const owed = waiter.passedOver?.has(topic.id) === true || waiter.lastTries?.has(topic.id) === true
    if (catchUp && !owed) continue
    if (jobs + waiter.max > jobsMax && jobs > 0) break
    waiter.reservedBy = topic.id
    waiter.passedOver?.delete(topic.id)
    reserved.push(waiter)
    jobs += waiter.max
  }
  return reserved
}

/** Whether a row that was claimed for the one is as good for the other. */
function isAlike(one: Waiter, other: Waiter): boolean {
  return one.subscription.id === other.subscription.id && one.key === other.key
}

/** Neighbours that are alike share a slot. */
function groupBySlot(waiters: readonly Waiter[]): [Waiter, ...Waiter[]][] {
  const groups: [Waiter, ...Waiter[]][] = []
  for (const waiter of waiters) {
    const last = groups.at(-1)
    if (last !== undefined && isAlike(last[0], waiter)) last.push(waiter)
    else groups.push([waiter])
  }
  return groups
}

export function toSlots(waiters: readonly Waiter[]): Slot[] {
  return groupBySlot(waiters).map((group) => ({
    subscription: group[0].subscription,
    key: group[0].key,
    jobs: group.reduce((sum, { max }) => sum + max, 0),
  }))
}

export type Assignment = {
  /** Jobs that are in no share are such that nobody here can take any more. */
  readonly shares: ReadonlyMap<Waiter, ClaimedJob[]>
  readonly ended: readonly Waiter[]
}

/**
 * Who gets which job. Sockets are asked once more, in the tick in which they will be written to: the job of a waiter
 * that died meanwhile goes to the next one that is like it, of the same subscription and with the same key, if it had one,
 * else to nobody.
 */
export function assign(topic: Queue, reserved: readonly Waiter[], claim: Claim): Assignment {
  const groups = groupBySlot(reserved)
  const shares = new Map<Waiter, ClaimedJob[]>()
  const canTake = (waiter: Waiter) =>
    waiter.parked && waiter.isLive() && (shares.get(waiter)?.length ?? 0) < waiter.max

  for (const { slot, job } of claim.jobs) {
    const group = groups[slot] ?? []
    const taker = group.find(canTake) ?? substitute(topic, group[0], canTake)
    if (taker === undefined) continue
    const share = shares.get(taker)
    if (share === undefined) shares.set(taker, [job])
    else share.push(job)
  }
  return { shares, ended: claim.endedSlots.flatMap((slot) => groups[slot] ?? []) }
}

function substitute(topic: Queue, like: Waiter | undefined, canTake: (waiter: Waiter) => boolean) {
  if (like === undefined) return undefined
  for (const waiter of topic.waiters) {
    const free = waiter.reservedBy === undefined || waiter.reservedBy === topic.id
    if (free && isAlike(waiter, like) && canTake(waiter)) return waiter
  }
  return undefined
}
