/** Milliseconds of the machine's monotonic clock: the same in every process, so instants can be compared across them. */
export function now(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1_000 + nanoseconds / 1e6
}

/** Whole microseconds: what instants are rounded to on their way between processes. */
export const rounded = (ms: number) => Math.round(ms * 1000) / 1000

/** Wall-clock milliseconds with a fraction, for what the database dates. */
export const wallNow = () => performance.timeOrigin + performance.now()

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** Resolves to false when `promise` takes longer than `ms`. */
export async function within(ms: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
