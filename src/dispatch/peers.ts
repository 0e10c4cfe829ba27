import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { GatewayStore } from '../domain/ports.ts'
import type { Identity } from './identity.ts'

/** Finds gateways that have died, also those that died before this one started, and gives back what they had claimed. */
export type Peers = {
  /** Ids whose lock a look found free. */
  saw(unlocked: readonly number[]): void
  listening(): void
  deaf(): void
  stop(): Promise<void>
}

// Seen free once, a lock is free for ever: the time is its owner's, to find out and to say so under its next id.
const deadMs = 2_000
// When a server restarts or fails over everybody loses the session, and comes back at a time of their own.
const settleMs = 10_000
const retryMs = 1_000

export function createPeers(options: {
  readonly store: Pick<GatewayStore, 'bury'>
  readonly identity: Pick<Identity, 'owns'>
  readonly clock: Clock
  readonly emit: Emit
  /** The lock of this gateway's own id is free. */
  readonly onOwn: (id: number) => void
}): Peers {
  const { store, identity, clock, emit, onOwn } = options
  /** When each was first seen. */
  const unlocked = new Map<number, number>()
  let notBefore = Infinity
  let timer: Timer | undefined
  let burying: Promise<void> | undefined

  function schedule(): void {
    timer?.cancel()
    const oldest = Math.min(...unlocked.values())
    const at = Math.max(oldest + deadMs, notBefore)
    if (at === Infinity || burying !== undefined) return
    timer = clock.after(at - clock.now(), () => {
      burying = bury(at).finally(() => {
        burying = undefined
        schedule()
      })
    })
  }

  /** Those whose time has come at the instant that the timer was set for: timers are a fraction early. */
  async function bury(at: number): Promise<void> {
    const gateways = [...unlocked].flatMap(([id, since]) => (since + deadMs <= at ? [id] : []))
    for (const id of gateways) unlocked.delete(id)
    try {
      const jobs = await store.bury(gateways)
      emit({ type: 'gateways buried', gateways, jobs })
      emit({ type: 'jobs returned', reason: 'gateway died', jobs })
    } catch (error) {
      emit({ type: 'upkeep failed', task: 'gateways', error: asError(error) })
      // Every look sees them again.
      notBefore = Math.max(notBefore, clock.now() + retryMs)
    }
  }

  return {
    saw(ids) {
      const now = clock.now()
      for (const id of ids) {
        if (identity.owns(id)) onOwn(id)
        else if (!unlocked.has(id)) unlocked.set(id, now)
      }
      for (const id of unlocked.keys()) if (!ids.includes(id)) unlocked.delete(id)
      schedule()
    },
    listening() {
      notBefore = clock.now() + settleMs
      schedule()
    },
    deaf() {
      notBefore = Infinity
      unlocked.clear()
      timer?.cancel()
    },
    async stop() {
      notBefore = Infinity
      timer?.cancel()
      await burying
    },
  }
}
