import { asError } from '../../domain/errors.ts'
import type { QueueStore } from '../../domain/ports.ts'
import { Executor, subscribe } from './executor.ts'
import type { Pulled } from './executor.ts'
import { hintsFor } from './hints.ts'
import type { DatabaseHint } from './hints.ts'
import { readSpecs } from './specs.ts'
import { Tally } from './tally.ts'

export const topics = { prod: 'jobs_demo_prod', dev: 'jobs_demo_dev' }
const remembered = 2_000

type LiveOptions = {
  readonly queue: QueueStore
  readonly gateway: string
  readonly database: DatabaseHint
  readonly signal: Promise<unknown>
}

/** Traffic that touches everything a dashboard shows, and a line a second, until the signal. */
export async function runLive(options: LiveOptions): Promise<number> {
  const { queue, gateway, signal } = options
  const specs = readSpecs()
  const tally = new Tally()
  const stop = new AbortController()
  const prod = await subscribe(gateway, { topic: topics.prod, name: 'demo-prod', ack: 'explicit' })
  const dev = await subscribe(gateway, { topic: topics.dev, name: 'demo-dev', ack: 'auto' })
  console.log(hintsFor(gateway, options.database))

  const executors = [prod, prod, prod, dev].map((id) =>
    new Executor(gateway, id, stop.signal).run(async (job, executor) => {
      tally.received(job.id, job.text, performance.now())
      await work(job, executor)
    }),
  )
  let published = 0
  let tick = 0
  const publishSome = async () => {
    tick += 1
    // A steady trickle, and a burst every 10 s.
    const jobs = tick % 100 === 0 ? 50 : 1
    for (let n = 0; n < jobs; n += 1) {
      const spec = specs[published % specs.length]?.text ?? ''
      const topic = published % 5 === 4 ? topics.dev : topics.prod
      const later = published % 20 === 19 ? { delaySeconds: 1 + Math.random() * 3 } : {}
      const at = performance.now()
      const { id } = await queue.publish(topic, spec, later)
      // A delayed job's delay is no latency.
      if (later.delaySeconds === undefined) tally.published(id, spec, at)
      published += 1
    }
  }
  const publisher = repeat(100, stop.signal, publishSome)
  const reporter = repeat(1_000, stop.signal, () => {
    tally.forgetOld(remembered)
    const [p50, p99] = [tally.percentileMs(0.5), tally.percentileMs(0.99)]
    console.log(
      `published ${published}  delivered ${tally.handOvers} (${tally.again} again)  publish → executor p50 ${p50.toFixed(1)} ms  p99 ${p99.toFixed(1)} ms`,
    )
    return Promise.resolve()
  })
  await signal
  stop.abort()
  await Promise.all([...executors, publisher, reporter])
  return 0
}

/** Most jobs succeed at once; some take longer and send heartbeats, fail and are retried, or are given back. */
async function work(job: Pulled, executor: Executor): Promise<void> {
  if (job.lease === undefined) return
  const luck = Math.random()
  if (luck < 0.05) {
    await executor.settle(job, 'fail', { error: 'the demo rolled a one', retryAfterSeconds: 1 })
  } else if (luck < 0.07) {
    await executor.settle(job, 'release')
  } else {
    if (luck < 0.15) await executor.settle(job, 'heartbeat', { progress: { percent: 50 } })
    await executor.settle(job, 'complete', { result: { exitCode: 0 } })
  }
}

async function repeat(ms: number, signal: AbortSignal, run: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    try {
      await run()
    } catch (error) {
      console.error(`demo: ${asError(error).message}; trying again`)
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms)
      signal.addEventListener('abort', done)
      function done() {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
    })
  }
}
