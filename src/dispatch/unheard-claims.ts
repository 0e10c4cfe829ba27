import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { GatewayStore, UnheardClaim } from '../domain/ports.ts'

/**
 * Claims whose answer was lost. Such a statement may have taken jobs, or may yet, when it was held up on its way, and
 * nobody would run them before their leases end. So they are looked for, and given back: at once, or as soon as the
 * database answers again, and then less and less often for two minutes. While no claim fails this costs nothing.
 */
export type UnheardClaims = {
  remember(claim: UnheardClaim): void
  /** Looks for the last time. */
  stop(): Promise<void>
}

const pausesMs = [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000]
const retryMs = 500
// While the database is away every claim fails. The first ones may have reached it.
const claimsMax = 1_000

export function createUnheardClaims(options: {
  readonly store: Pick<GatewayStore, 'giveBackUnheard'>
  readonly clock: Clock
  readonly emit: Emit
}): UnheardClaims {
  const { store, clock, emit } = options
  type Open = { readonly claim: UnheardClaim; looks: number; at: number }
  const open = new Set<Open>()
  let timer: Timer | undefined
  let looking: Promise<void> | undefined
  let stopped = false

  function schedule(): void {
    timer?.cancel()
    if (stopped || looking !== undefined || open.size === 0) return
    const at = Math.min(...[...open].map((each) => each.at))
    timer = clock.after(at - clock.now(), () => {
      // Not by the clock: timers are a fraction early.
      looking = look([...open].filter((each) => each.at <= at)).finally(() => {
        looking = undefined
        schedule()
      })
    })
  }

  async function look(due: readonly Open[]): Promise<void> {
    const oldest = Math.min(...due.map(({ claim }) => claim.sentAt))
    try {
      const claims = due.map(({ claim }) => claim)
      const jobs = await store.giveBackUnheard(claims, (clock.now() - oldest) / 1000)
      emit({ type: 'jobs returned', reason: 'answer lost', jobs })
    } catch (error) {
      emit({ type: 'upkeep failed', task: 'unheard claims', error: asError(error) })
      for (const each of due) each.at = clock.now() + retryMs
      return
    }
    for (const each of due) {
      const pauseMs = pausesMs[++each.looks]
      if (pauseMs === undefined) open.delete(each)
      else each.at = clock.now() + pauseMs
    }
  }

  return {
    remember(claim) {
      if (open.size >= claimsMax) {
        const text = `more than ${claimsMax} claims were not answered; what this one took waits for its lease's end`
        emit({ type: 'upkeep failed', task: 'unheard claims', error: new Error(text) })
        return
      }
      open.add({ claim, looks: 0, at: clock.now() + (pausesMs[0] ?? 0) })
      schedule()
    },
    async stop() {
      stopped = true
      timer?.cancel()
      await looking
      if (open.size > 0) await look([...open])
    },
  }
}
