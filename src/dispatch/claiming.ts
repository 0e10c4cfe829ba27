import type { Clock } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { Claim, ClaimReply, DueClaim, JobStore, Slot } from '../domain/ports.ts'
import type { ReturnReason } from '../domain/types.ts'
import type { Deliveries } from './deliveries.ts'
import { isWatched } from './held-jobs.ts'
import type { HeldJobs } from './held-jobs.ts'
import type { Identity } from './identity.ts'

/** Claims of which nobody else gives anything back: what it resolves to may be handed out in the same tick. */
export type Claiming = {
  claim(...args: Parameters<JobStore['claim']>): Promise<Claim>
  claimDue(...args: Parameters<JobStore['claimDue']>): Promise<DueClaim>
}

// Others give back what was claimed more than 2 s ago under an id whose lock is free, which its owner may not know yet.
// So the write has to begin within a second of the claim. Asking counts, being earlier than the instant that the
// database notes.
const lateMs = 1_000

/**
 * Leaves out what was claimed under an id that has been lost meanwhile, and watched jobs whose answer came late. Late
 * ones are first made to count as claimed now: on a database that is slow under load, where each claim takes longer
 * than a second, jobs would else be claimed and given back for ever. That takes one update by primary key; where even
 * that is not answered within a second they do go back. With explicit acknowledgement nobody acts on a claim, and
 * its answer may take its time.
 */
export function createClaiming(options: {
  readonly store: Pick<JobStore, 'claim' | 'claimDue' | 'refresh'>
  readonly identity: Pick<Identity, 'current'>
  readonly held: Pick<HeldJobs, 'add'>
  readonly deliveries: Pick<Deliveries, 'giveBack'>
  readonly clock: Pick<Clock, 'now'>
  readonly emit: Emit
}): Claiming {
  const { store, identity, held, deliveries, clock, emit } = options
  type Jobs = Claim['jobs']

  /** Those of the watched jobs that still count, and did so less than a second ago. */
  async function refresh(watched: Jobs): Promise<Jobs> {
    const askedAt = clock.now()
    const refreshed = await store.refresh(watched.map(({ job }) => job)).catch((error: unknown) => {
      emit({ type: 'upkeep failed', task: 'gateways', error: asError(error) })
      return []
    })
    if (clock.now() - askedAt > lateMs) return []
    const ends = new Map(refreshed.map(({ lease, leaseEndsAt }) => [lease, leaseEndsAt]))
    return watched.flatMap(({ slot, job }) => {
      const leaseEndsAt = ends.get(job.lease)
      return leaseEndsAt === undefined ? [] : [{ slot, job: { ...job, leaseEndsAt } }]
    })
  }

  function giveBack(jobs: Jobs, reason: ReturnReason): void {
    if (jobs.length === 0) return
    deliveries.giveBack(jobs.map(({ job }) => job))
    emit({ type: 'jobs returned', reason, jobs: jobs.length })
  }

  async function keepOurs<Reply extends ClaimReply>(
    slots: readonly Slot[],
    asked: Promise<Reply>,
  ): Promise<Omit<Reply, 'gateway'>> {
    const askedAt = clock.now()
    const reply = await asked
    try {
      return await sift(slots, reply, askedAt)
    } catch (error) {
      giveBack(reply.jobs, 'answer failed')
      throw error
    }
  }

  async function sift<Reply extends ClaimReply>(
    slots: readonly Slot[],
    { gateway, ...claim }: Reply,
    askedAt: number,
  ): Promise<Omit<Reply, 'gateway'>> {
    const isOurs = () => identity.current === gateway
    const watched = claim.jobs.filter(({ slot }) => slots[slot] && isWatched(slots[slot].subscription))
    let fresh: Jobs = watched
    if (watched.length > 0 && isOurs() && clock.now() - askedAt > lateMs) fresh = await refresh(watched)
    if (!isOurs()) {
      giveBack(claim.jobs, 'session lost')
      return { ...claim, jobs: [], left: true }
    }
    held.add(fresh.flatMap(({ slot, job }) => (slots[slot]?.subscription.ack === 'auto' ? [job] : [])))
    if (fresh === watched) return claim
    const byLease = new Map(fresh.map((each) => [each.job.lease, each]))
    const stale = watched.filter(({ job }) => !byLease.has(job.lease))
    giveBack(stale, 'answer late')
    const jobs = claim.jobs.flatMap((each) =>
      stale.includes(each) ? [] : [byLease.get(each.job.lease) ?? each],
    )
    return { ...claim, jobs, left: claim.left === true || stale.length > 0 }
  }

  return {
    claim: (topic, slots, marks) => keepOurs(slots, store.claim(topic, slots, marks)),
    claimDue: (limit, dueAfter, topic, slots, marks) =>
      keepOurs(slots, store.claimDue(limit, dueAfter, topic, slots, marks)),
  }
}
