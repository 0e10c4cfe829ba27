import type { Clock } from '../domain/clock.ts'
import type { Held } from '../domain/ports.ts'
import type { Subscription } from '../domain/types.ts'

/**
 * Whether others give back what was claimed for this subscription when the claiming gateway dies: job.unconfirmed in
 * the database. A lease with explicit acknowledgement runs to its end whatever becomes of the gateway, an offer does not.
 */
export function isWatched(subscription: Subscription): boolean {
  return subscription.ack === 'auto' || subscription.offerSeconds !== null
}

/**
 * The jobs with automatic acknowledgement that are being handed out here, until the database has what became of them. Of
 * what the database has as unconfirmed under an id of this gateway, the others have reached nobody, offers apart.
 */
export type HeldJobs = {
  add(jobs: readonly Held[]): void
  reported(jobs: readonly Held[]): void
  all(): Held[]
}

// For reports that were given up. Longer than the 2 minutes that pullgate.retire looks back: what is forgotten here must
// not be taken there for a job that reached nobody.
const holdMsMax = 180_000

export function createHeldJobs(clock: Pick<Clock, 'now'>): HeldJobs {
  /** By lease, the oldest first. */
  const held = new Map<Held['lease'], { readonly id: Held['id']; readonly since: number }>()

  return {
    add(jobs) {
      const now = clock.now()
      for (const [lease, { since }] of held) {
        if (now - since <= holdMsMax) break
        held.delete(lease)
      }
      for (const { id, lease } of jobs) held.set(lease, { id, since: now })
    },
    reported(jobs) {
      for (const { lease } of jobs) held.delete(lease)
    },
    all: () => [...held].map(([lease, { id }]) => ({ id, lease })),
  }
}
