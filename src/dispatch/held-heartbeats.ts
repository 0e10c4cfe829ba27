import type { Clock, Timer } from '../domain/clock.ts'
import type { SettleStore } from '../domain/ports.ts'
import type { JobId, SettleStatus } from '../domain/types.ts'

/** Heartbeats that are held until their executor is to be told something. They hold no connection and no transaction. */
export type HeldHeartbeats = {
  /**
   * To be opened before the database is asked, so that a cancel that comes in between is noticed. Undefined if as many
   * are open as may be, or the drain has begun: it is then answered at once.
   */
  open(job: JobId): HeldHeartbeat | undefined
  /** Something was said of the job: whoever holds a heartbeat for it is to ask again. False if nobody does. */
  announced(job: JobId): boolean
  /** Announcements may have been missed. */
  announcedAll(): void
  /** Ends all of them, spread over `spreadMs`, and opens no more; resolves when all have ended. */
  drain(spreadMs: number): Promise<void>
  readonly size: number
}

export type HeldHeartbeat = {
  /** Resolves to `announced` once something was said of the job since it was opened or last waited, else to `over`. */
  wait(ms: number): Promise<'announced' | 'over'>
  /** It is over; to be called at its end, whatever that was. */
  close(): void
}

type Held = HeldHeartbeat & { announce(): void }

export function createHeldHeartbeats({
  clock,
  heldMax,
}: {
  readonly clock: Clock
  readonly heldMax: number
}): HeldHeartbeats {
  const byJob = new Map<JobId, Set<Held>>()
  let size = 0
  let draining = false

  function create(job: JobId): Held {
    let announced = false
    let closed = false
    let timer: Timer | undefined
    let wake: (() => void) | undefined
    const held: Held = {
      async wait(ms) {
        if (!announced && !closed && ms > 0) {
          await new Promise<void>((resolve) => {
            wake = resolve
            timer = clock.after(ms, resolve)
          })
          timer?.cancel()
        }
        const heard = announced && !closed
        announced = false
        return heard ? 'announced' : 'over'
      },
      announce() {
        announced = true
        wake?.()
      },
      close() {
        if (closed) return
        closed = true
        size -= 1
        const others = byJob.get(job)
        others?.delete(held)
        if (others?.size === 0) byJob.delete(job)
        wake?.()
      },
    }
    return held
  }

  const all = () => [...byJob.values()].flatMap((some) => [...some])

  return {
    open(job) {
      if (draining || size >= heldMax) return undefined
      const held = create(job)
      byJob.set(job, (byJob.get(job) ?? new Set()).add(held))
      size += 1
      return held
    },
    announced(job) {
      const some = byJob.get(job)
      for (const held of some ?? []) held.announce()
      return some !== undefined
    },
    announcedAll() {
      for (const held of all()) held.announce()
    },
    async drain(spreadMs) {
      draining = true
      const ends = all().map(
        (held) =>
          new Promise<void>((resolve) => {
            clock.after(clock.random() * spreadMs, () => {
              held.close()
              resolve()
            })
          }),
      )
      await Promise.all(ends)
    },
    get size() {
      return size
    },
  }
}

/** The store, of which each settle that counts is announced: whoever holds a heartbeat for the job here hears of its end. */
export function announceSettles(
  store: SettleStore,
  heartbeats: Pick<HeldHeartbeats, 'announced'>,
): SettleStore {
  const announce = async <Result extends { readonly status: SettleStatus }>(
    job: JobId,
    settling: Promise<Result>,
  ): Promise<Result> => {
    const result = await settling
    if (result.status === 'ok') heartbeats.announced(job)
    return result
  }
  return {
    ...store,
    complete: (job, ...rest) => announce(job, store.complete(job, ...rest)),
    fail: (job, ...rest) => announce(job, store.fail(job, ...rest)),
    release: (job, ...rest) => announce(job, store.release(job, ...rest)),
  }
}
