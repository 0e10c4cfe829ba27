import { now, rounded, sleep, within } from '../lib/time.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Wire } from '../lib/wire.ts'
import { finish, readInput, sayReady, stop } from './process.ts'

/**
 * Executors in one process, a connection each: pull, complete, pull again, until `jobs` have been completed in all or
 * the bench says so. Connection i pulls from gateway i and subscription i, both modulo their number.
 */
const input = readInput() as {
  readonly gateways: readonly string[]
  readonly subscriptions: readonly string[]
  readonly connections: number
  /** null: one job per pair of requests; else batches whose completes ride on the next pull. */
  readonly max: number | null
  readonly waitSeconds: number
  /** How long each job takes its executor. */
  readonly holdMs?: number
  readonly jobs?: number
  readonly secondsMax: number
}

type Job = { readonly id: string; readonly lease: string; readonly jobSpec: { readonly n?: number } }

const jobs = input.jobs ?? Infinity
const { holdMs = 0 } = input
const received = { ids: [] as string[], ns: [] as number[], at: [] as number[] }
let completed = 0
let completedAt = 0

const path = (i: number) =>
  `/subscriptions/${input.subscriptions[i % input.subscriptions.length] ?? ''}?wait=${input.waitSeconds}`

function note(job: Job, at: number): void {
  const { n = 0 } = job.jobSpec
  // A job published to register the topic.
  if (n < 0) return
  received.ids.push(job.id)
  received.ns.push(n)
  received.at.push(rounded(at))
}

async function pullSingle(wire: Wire, pullPath: string): Promise<void> {
  while (completed < jobs && !stop.asked) {
    const answer = await wire.send('PATCH', pullPath)
    if (answer.status === 204) continue
    const job = jsonOf(answer) as Job
    note(job, answer.at)
    if (holdMs > 0) await sleep(holdMs)
    jsonOf(await wire.send('POST', `/jobs/${job.id}/complete`, `{"lease":"${job.lease}"}`))
    completed += 1
    completedAt = now()
  }
}

async function pullBatches(wire: Wire, pullPath: string, max: number): Promise<void> {
  let done: readonly Job[] = []
  while ((completed < jobs || done.length > 0) && !stop.asked) {
    const completes = done.map(({ id, lease }) => `{"id":"${id}","lease":"${lease}"}`)
    const answer = await wire.send('PATCH', `${pullPath}&max=${max}`, `{"complete":[${completes.join(',')}]}`)
    completed += done.length
    completedAt = now()
    done = answer.status === 204 ? [] : (jsonOf(answer) as { jobs: Job[] }).jobs
    for (const job of done) note(job, answer.at)
  }
}

const wires = Array.from({ length: input.connections }, (_, i) =>
  openWire(input.gateways[i % input.gateways.length] ?? ''),
)
const startedAt = now()
const executors = wires.map((wire, i) =>
  input.max === null ? pullSingle(wire, path(i)) : pullBatches(wire, path(i), input.max),
)
// The pulls have been written by then, and parked if nothing is there.
await sleep(300)
sayReady()
// Of those that still wait nobody has a job: all `jobs` are completed, or the bench does not want more.
const allDone = (async () => {
  while (completed < jobs && !stop.asked) await sleep(2)
})()
await within(input.secondsMax * 1000, Promise.race([Promise.all(executors), allDone]))
const seconds = (completedAt - startedAt) / 1000
for (const wire of wires) wire.close()
finish({ ...received, completed, seconds })
