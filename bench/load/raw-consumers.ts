import { claimRaw, completeRaw, rawChannel, subscribeRaw } from '../lib/raw.ts'
import type { RawJob } from '../lib/raw.ts'
import { now, rounded, sleep } from '../lib/time.ts'
import { connectAll } from './connections.ts'
import { finish, readInput, sayReady, stopped } from './process.ts'

/**
 * What a consumer without HTTP can do at best: one connection claims in batches, one completes in batches, each with
 * one statement under way. It claims when notified, or every 3 ms.
 */
const input = readInput<{
  readonly databaseUrl: string
  readonly topic: string
  readonly kind: 'listen' | 'tick'
  readonly batch: number
  readonly jobs: number
  readonly secondsMax: number
}>()

const tickMs = 3
const received = { ns: [] as number[], at: [] as number[] }
let halted = false
let pending: RawJob[] = []
let completing = false
let claiming = false
let again = false

const [claimer, completer, listener] = await connectAll(input.databaseUrl, 3)
if (claimer === undefined || completer === undefined || listener === undefined) throw new Error('no connection')
const subscription = await subscribeRaw(claimer, input.topic)

async function completeAll(): Promise<void> {
  if (completing) return
  completing = true
  while (pending.length > 0) {
    const jobs = pending
    pending = []
    await completeRaw(completer as NonNullable<typeof completer>, jobs)
  }
  completing = false
}

async function claimAll(): Promise<void> {
  if (claiming) {
    again = true
    return
  }
  claiming = true
  do {
    again = false
    const jobs = await claimRaw(claimer as NonNullable<typeof claimer>, input.topic, subscription, input.batch)
    const at = rounded(now())
    for (const { jobSpec } of jobs) {
      const { n } = JSON.parse(jobSpec) as { n: number }
      if (n < 0) continue
      received.ns.push(n)
      received.at.push(at)
    }
    pending.push(...jobs)
    if (jobs.length === input.batch) again = true
    void completeAll()
  } while (again)
  claiming = false
}

listener.on('notification', () => void claimAll())
if (input.kind === 'listen') await listener.query(`listen ${rawChannel}`)
await claimAll()
sayReady()
void stopped.then(() => (halted = true))
const until = now() + input.secondsMax * 1000
while (received.ns.length < input.jobs && !halted && now() < until) {
  await sleep(tickMs)
  if (input.kind === 'tick') await claimAll()
}
while (completing || pending.length > 0) await sleep(5)
finish(received)
