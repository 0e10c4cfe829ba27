import type { Clock } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { Held, JobStore } from '../domain/ports.ts'
import type { HeldJobs } from './held-jobs.ts'

/** Reports to the database what became of handed-out jobs. */
export type Deliveries = {
  /** Reached nobody: ready again, no attempt spent. */
  giveBack(jobs: readonly Held[]): void
  /** Automatically acknowledged, and written. */
  confirm(jobs: readonly Held[]): void
  /** The connection broke on the way: back as by giveBack, or on_lost decides (pullgate.doubt). */
  doubt(jobs: readonly Held[]): void
  /** Resolves when nothing is left to report. */
  settled(): Promise<void>
}

// A report counts until its job is claimed again, also after the lease ended, and while the database is away nobody
// claims: one that was given up would let a job that was delivered run twice. So it outlasts a restart or failover.
const retryMs = 500
const triesMax = 600
const pendingMax = 100_000
const batchMax = 500

/**
 * Coalesces concurrent reports into one statement without delaying a lone one: the statement in flight is the window
 * in which the next batch gathers. All reports are compare-and-set on the lease, so repeating one is harmless; one
 * that is given up leaves the job to the end of its lease.
 */
export function createDeliveries(options: {
  readonly store: Pick<JobStore, 'giveBack' | 'confirm' | 'doubt'>
  readonly held: Pick<HeldJobs, 'reported'>
  readonly clock: Clock
  readonly emit: Emit
}): Deliveries {
  const { store, held, clock, emit } = options
  let busy = 0
  const onIdle: (() => void)[] = []

  function reporter(
    outcome: 'confirmed' | 'undelivered' | 'in doubt',
    send: (jobs: Held[]) => Promise<number>,
  ) {
    const pending: Held[] = []
    let running = false

    async function run(): Promise<void> {
      running = true
      busy += 1
      for (let tries = 0; pending.length > 0;) {
        const batch = pending.slice(0, batchMax)
        try {
          const jobs = await send(batch)
          emit({ type: 'delivery', outcome, jobs })
          held.reported(batch)
          pending.splice(0, batch.length)
          tries = 0
        } catch (cause) {
          tries += 1
          if (tries >= triesMax) {
            const dropped = pending.splice(0, batch.length).length
            emit({ type: 'delivery report failed', dropped, error: asError(cause) })
            tries = 0
            continue
          }
          await new Promise<void>((resolve) => clock.after(retryMs, resolve))
        }
      }
      running = false
      busy -= 1
      if (busy === 0) for (const resolve of onIdle.splice(0)) resolve()
    }

    return (jobs: readonly Held[]) => {
      if (pending.length + jobs.length > pendingMax) {
        const error = new Error('too many delivery reports wait for the database')
        emit({ type: 'delivery report failed', dropped: jobs.length, error })
        return
      }
      for (const { id, lease } of jobs) pending.push({ id, lease })
      if (!running) void run()
    }
  }

  return {
    giveBack: reporter('undelivered', store.giveBack),
    confirm: reporter('confirmed', store.confirm),
    doubt: reporter('in doubt', store.doubt),
    settled() {
      if (busy === 0) return Promise.resolve()
      return new Promise((resolve) => onIdle.push(resolve))
    },
  }
}
