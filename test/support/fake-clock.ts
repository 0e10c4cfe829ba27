import type { Clock } from '../../src/domain/clock.ts'
import { mulberry32 } from './random.ts'

export type FakeClock = Clock & {
  /** Moves time, and runs the timers that fall due on the way, each at its own instant. */
  advance(ms: number): void
  /** Milliseconds to each timer that is set, soonest first. */
  timers(): number[]
}

/** Time that stands still unless a test moves it. The same seed gives the same random numbers. */
/** `earlyMs`: real timers fire up to a millisecond before the instant that they were set for. */
export function createFakeClock(
  options: { seed?: number; random?: () => number; earlyMs?: number } = {},
): FakeClock {
  const { earlyMs = 0 } = options
  const timers = new Set<{ readonly at: number; readonly run: () => void }>()
  let now = 1_000
  const soonest = () => [...timers].sort((a, b) => a.at - b.at)
  return {
    now: () => now,
    after(ms, run) {
      const timer = { at: now + Math.max(0, ms), run }
      timers.add(timer)
      return { cancel: () => void timers.delete(timer) }
    },
    random: options.random ?? mulberry32(options.seed ?? 1),
    advance(ms) {
      const end = now + ms
      for (let [timer] = soonest(); timer !== undefined && timer.at - earlyMs <= end; [timer] = soonest()) {
        timers.delete(timer)
        now = Math.max(now, timer.at - earlyMs)
        timer.run()
      }
      now = end
    },
    timers: () => soonest().map((timer) => timer.at - now),
  }
}

/** Resolves when every promise job that could run has run. */
export function idle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
