import { claimRaw, completeRaw, rawChannel, subscribeRaw } from '../lib/raw.ts'
import type { RawJob } from '../lib/raw.ts'
import { now, rounded, sleep } from '../lib/time.ts'
import { connectAll } from './connections.ts'
import { finish, readInput, sayReady, stop } from './process.ts'

/**
 * What a consumer without HTTP can do at best: one connection claims in batches, one completes in batches, each with
 * one statement under way. It claims when notified, or every 3 ms.
 */
const input = readInput() as {
  readonly databaseUrl: string
  readonly topic: string
  readonly kind: 'listen' | 'tick'
  readonly batch: number
  readonly jobs: number
  readonly secondsMax: number
}

const tickMs = 3
const received = { ns: [] as number[], at: [] as number[] }
let pending: RawJob[] = []
const busy = { claiming: false, again: false, completing: false }

const [claimer, completer, listener] = await connectAll(input.databaseUrl, 3)
if (claimer === undefined || completer === undefined || listener === undefined)
  throw new Error('no connection')
const subscription = await subscribeRaw(claimer, input.topic)

async function completeAll(): Promise<void> {
  if (busy.completing) return
  busy.completing = true
  while (pending.length > 0) {
    const jobs = pending
    pending = []
    await completeRaw(completer as NonNullable<typeof completer>, jobs)
  }
  busy.completing = false
}

async function claimAll(): Promise<void> {
  if (busy.claiming) {
    busy.again = true
    return
  }
  busy.claiming = true
  do {
    busy.again = false
    const jobs = await claimRaw(
      claimer as NonNullable<typeof claimer>,
      input.topic,
      subscription,
      input.batch,
    )
    const at = rounded(now())
    for (const { jobSpec } of jobs) {
      const { n } = JSON.parse(jobSpec) as { n: number }
      if (n < 0) continue
      received.ns.push(n)
      received.at.push(at)
    }
    pending.push(...jobs)
    if (jobs.length === input.batch) busy.again = true
    void completeAll()
  } while (busy.again)
  busy.claiming = false
}

listener.on('notification', () => void claimAll())
if (input.kind === 'listen') await listener.query(`listen ${rawChannel}`)
await claimAll()
sayReady()
const until = now() + input.secondsMax * 1000
while (received.ns.length < input.jobs && !stop.asked && now() < until) {
  await sleep(tickMs)
  if (input.kind === 'tick') await claimAll()
}
while (busy.completing || pending.length > 0) await sleep(5)
finish(received)
