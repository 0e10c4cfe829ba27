export type Timer = { readonly cancel: () => void }

/** Elapsed time only: instants that people see come from the database. */
export type Clock = {
  /** Monotonic milliseconds. */
  now(): number
  /** Calls `run` once after `ms`. Does not keep the process alive. */
  after(ms: number, run: () => void): Timer
  /** A random number in [0, 1), for jitter. */
  random(): number
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms)
    timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
  random: () => Math.random(),
}
