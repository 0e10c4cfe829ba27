import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { startGateway } from '../../app.ts'
import type { Config } from '../../config.ts'
import { openDatabase } from '../../db/database.ts'
import { openHome } from '../../db/home.ts'
import { createQueueStore } from '../../db/queue-store.ts'
import type { QueueStore } from '../../domain/ports.ts'
import { firstSignal } from '../../main.ts'
import { version } from '../../version.ts'
import { Executor, subscribe } from './executor.ts'
import type { DatabaseHint } from './hints.ts'
import { runLive, topics } from './live.ts'
import { readSpecs } from './specs.ts'
import { Tally } from './tally.ts'

const onceJobs = 200

/**
 * Publisher and executors at work on a gateway: one of its own on an embedded Postgres, or, with DATABASE_URL and
 * PULLGATE_URL, on those. Runs until Ctrl-C; with `once` it publishes 200 jobs and checks that each arrived exactly
 * once and unchanged. Resolves to the exit code.
 */
export async function demo(config: Config, { once }: { readonly once: boolean }): Promise<number> {
  if (config.PULLGATE_URL !== undefined && config.DATABASE_URL === undefined) {
    throw new Error('PULLGATE_URL needs DATABASE_URL: the database of that gateway, to publish to')
  }
  const signal = firstSignal()
  const temporary = config.DATABASE_URL === undefined && config.PULLGATE_DATA_DIR === undefined
  const parent = temporary ? temporaryDir() : undefined
  const home = await openHome({
    url: config.DATABASE_URL,
    dataDir: parent === undefined ? config.PULLGATE_DATA_DIR : join(parent, 'postgres'),
    // A directory that was named may hold the jobs of `npm start`.
    keep: !temporary,
  })
  try {
    const url = config.PULLGATE_URL?.replace(/\/$/, '')
    const gateway =
      url === undefined ? await startGateway(forDemo(config, once), home.url, { lost: home.lost }) : undefined
    const database = openDatabase({
      url: home.url,
      applicationName: `pullgate-demo/${version}`,
      poolMax: 4,
      connectTimeoutMs: 5_000,
      statementTimeoutMs: 10_000,
      emit: () => undefined,
    })
    try {
      const queue = createQueueStore(database)
      const target = gateway?.url ?? url ?? ''
      return once
        ? await runOnce(queue, target, signal)
        : await runLive({ queue, gateway: target, database: databaseHint(config, home.url), signal })
    } finally {
      await database.close()
      await gateway?.stop('the demo ended')
    }
  } finally {
    await home.close()
    if (parent !== undefined) rmSync(parent, { recursive: true, force: true })
  }
}

function databaseHint(config: Config, url: string): DatabaseHint {
  if (config.DATABASE_URL !== undefined) return 'environment'
  return config.PULLGATE_DATA_DIR === undefined ? { url } : { dataDir: resolve(config.PULLGATE_DATA_DIR) }
}

/** One run shares neither data nor port with another. The account that runs Postgres may enter it. */
function temporaryDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'pullgate-demo-'))
  chmodSync(dir, 0o755)
  return dir
}

function forDemo(config: Config, once: boolean): Config {
  const ownPort = process.env.PULLGATE_PORT !== undefined
  return { ...config, PULLGATE_LOG_LEVEL: 'warn', ...(once && !ownPort ? { PULLGATE_PORT: 0 } : {}) }
}

async function runOnce(queue: QueueStore, gateway: string, signal: Promise<unknown>): Promise<number> {
  const specs = readSpecs()
  const tally = new Tally()
  const stop = new AbortController()
  const id = await subscribe(gateway, { topic: topics.prod, name: 'demo', ack: 'explicit' })
  let allArrived: () => void = () => undefined
  const arrived = new Promise<void>((resolve) => (allArrived = resolve))

  const executors = [1, 2, 3, 4].map(() =>
    new Executor(gateway, id, stop.signal).run(async (job, executor) => {
      tally.received(job.id, job.text, performance.now())
      await executor.settle(job, 'complete')
      if (tally.arrived === onceJobs) allArrived()
    }),
  )
  for (let n = 0; n < onceJobs; n += 1) {
    const spec = specs[n % specs.length]?.text ?? ''
    const at = performance.now()
    tally.published((await queue.publish(topics.prod, spec, {})).id, spec, at)
    if (tally.arrived === onceJobs) allArrived()
    // Slower than the executors work, so that the times show waking and not waiting.
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const late = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), 30_000).unref())
  await Promise.race([arrived, late, signal])
  stop.abort()
  await Promise.all(executors)

  const faults = tally.faults()
  const times = `publish → executor p50 ${tally.percentileMs(0.5).toFixed(1)} ms, p99 ${tally.percentileMs(0.99).toFixed(1)} ms`
  console.log(`published ${onceJobs}, delivered ${tally.handOvers}; ${times}`)
  for (const fault of faults.slice(0, 10)) console.error(fault)
  console.log(faults.length === 0 ? 'each job arrived exactly once and unchanged' : `${faults.length} faults`)
  return faults.length === 0 ? 0 : 1
}
