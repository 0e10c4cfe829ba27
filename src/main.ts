import { startGateway } from './app.ts'
import type { Config } from './config.ts'
import { openHome } from './db/home.ts'

/** Signals, exit codes, and what runs until one comes. */

// A second Ctrl-C within this time is a finger that slipped, not a wish to lose jobs.
const impatienceMs = 2_000

/**
 * Resolves with the name of the first SIGTERM or SIGINT. A later one, after a pause, ends the process on the spot, by
 * the signal itself, so that the exit status is true.
 */
export function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstAt: number | undefined
    const listener = (signal: NodeJS.Signals) => {
      if (firstAt === undefined) {
        firstAt = performance.now()
        resolve(signal)
      } else if (performance.now() - firstAt > impatienceMs) {
        process.off('SIGTERM', listener).off('SIGINT', listener)
        process.kill(process.pid, signal)
      }
    }
    process.on('SIGTERM', listener).on('SIGINT', listener)
  })
}

/** The gateway alone: until a signal. Resolves to the exit code. */
export async function serve(config: Config): Promise<number> {
  const signal = firstSignal()
  const starting = new AbortController()
  void signal.then(() => starting.abort())
  const home = await openHome({ url: config.DATABASE_URL, dataDir: config.PULLGATE_DATA_DIR, keep: true })
  try {
    const gateway = await startGateway(config, home.url, { signal: starting.signal, lost: home.lost })
    const received = await Promise.race([signal, home.lost.then(() => undefined)])
    const clean = await gateway.stop(received ?? 'the embedded Postgres ended')
    return clean && received !== undefined ? 0 : 1
  } catch (error) {
    // Told to stop while it waited for the database: nobody has been served yet.
    if (isAbort(error)) return 0
    throw error
  } finally {
    await home.close()
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || isAbort(error.cause))
}
