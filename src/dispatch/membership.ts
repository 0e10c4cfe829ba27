import type { Clock } from '../domain/clock.ts'
import type { Emit } from '../domain/events.ts'
import type { GatewayStore, UnheardClaim } from '../domain/ports.ts'
import { createHeldJobs } from './held-jobs.ts'
import type { HeldJobs } from './held-jobs.ts'
import { createIdentity } from './identity.ts'
import type { Identity } from './identity.ts'
import { createPeers } from './peers.ts'
import type { Peers } from './peers.ts'
import { createUnheardClaims } from './unheard-claims.ts'

/** This gateway among the others: its id, the jobs that it answers for, and what is given back when somebody cannot. */
export type Membership = {
  readonly identity: Pick<Identity, 'current'>
  readonly held: HeldJobs
  readonly peers: Pick<Peers, 'saw'>
  unheard(claim: UnheardClaim): void
  /** The listening session has begun, and has this id. */
  joined(gateway: number): void
  /** It has ended. */
  lost(): void
  /** Gives back what is left; no claim is made any more. */
  stop(): Promise<void>
}

export function createMembership(options: {
  readonly store: GatewayStore
  readonly clock: Clock
  readonly emit: Emit
  /** Claims are made again, though there is no session. */
  readonly onWithout: () => void
  /** The lock of this id, which is this gateway's, is free. */
  readonly onUnlocked: (id: number) => void
}): Membership {
  const { store, clock, emit, onWithout, onUnlocked } = options
  let stopped = false
  const held = createHeldJobs(clock)
  const unheard = createUnheardClaims({ store, clock, emit })
  const identity = createIdentity({ store, held, clock, emit, onWithout })
  const peers = createPeers({ store, identity, clock, emit, onOwn: onUnlocked })

  return {
    ...{ identity, held, peers, unheard: unheard.remember },
    joined(gateway) {
      if (stopped) return
      identity.taken(gateway)
      peers.listening()
    },
    lost() {
      identity.lost()
      peers.deaf()
    },
    async stop() {
      stopped = true
      await Promise.all([unheard.stop(), peers.stop()])
      await identity.stop()
    },
  }
}
