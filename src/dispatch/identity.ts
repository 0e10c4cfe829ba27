import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { GatewayStore } from '../domain/ports.ts'
import type { HeldJobs } from './held-jobs.ts'

/**
 * Under which id this gateway claims. The id is the listening session's and dies with it: others may then give back what
 * was claimed under it, so nothing more is claimed or handed out under it. Under the next id this gateway gives that
 * back itself, but for what it is writing, which goes over to the new id.
 */
export type Identity = {
  /** 0 stands for none, which nobody watches; undefined: nothing is to be claimed at the moment. */
  readonly current: number | undefined
  /** Whether the id is this gateway's, or was and has not been dealt with. */
  owns(id: number): boolean
  taken(id: number): void
  lost(): void
  /** Gives back what is left under any id; nothing is claimed any more. */
  stop(): Promise<void>
}

// A new session comes within milliseconds; a server that restarts or fails over answers no claims meanwhile. A gateway
// that cannot have one for longer goes on without: what it claims then is given back by the end of its lease alone.
const graceMs = 2_000
const retryMs = 1_000

export function createIdentity(options: {
  readonly store: Pick<GatewayStore, 'retire'>
  readonly held: Pick<HeldJobs, 'all'>
  readonly clock: Clock
  readonly emit: Emit
  /** Claims are made again, though there is no session. */
  readonly onWithout: () => void
}): Identity {
  const { store, held, clock, emit, onWithout } = options
  const former = new Set<number>()
  let current: number | undefined
  let grace: Timer | undefined
  let retry: Timer | undefined
  let retiring: Promise<void> | undefined
  let stopped = false

  /** What is not held at this moment was not handed out, and will not be: `current` has moved on. */
  async function retire(ids: readonly number[], heir: number): Promise<void> {
    const jobs = await store.retire(ids, heir, held.all())
    for (const id of ids) former.delete(id)
    emit({ type: 'jobs returned', reason: 'session lost', jobs })
  }

  async function retireFormer(): Promise<void> {
    try {
      while (former.size > 0 && current !== undefined && current !== 0) await retire([...former], current)
    } catch (error) {
      emit({ type: 'upkeep failed', task: 'gateways', error: asError(error) })
      if (!stopped) retry = clock.after(retryMs, startRetiring)
    }
  }

  function startRetiring(): void {
    if (former.size > 0) retiring ??= retireFormer().finally(() => (retiring = undefined))
  }

  return {
    get current() {
      return current
    },
    owns: (id) => id === current || former.has(id),
    taken(id) {
      grace?.cancel()
      grace = undefined
      current = id
      emit({ type: 'gateway joined', gateway: id })
      startRetiring()
    },
    lost() {
      // Another cause for the same loss.
      if (grace !== undefined) return
      if (current !== undefined && current !== 0) former.add(current)
      current = undefined
      grace = clock.after(graceMs, () => {
        current = 0
        onWithout()
      })
    },
    async stop() {
      stopped = true
      grace?.cancel()
      retry?.cancel()
      await retiring
      const ids = current === undefined || current === 0 ? [...former] : [...former, current]
      if (ids.length > 0) await retire(ids, 0)
    },
  }
}
