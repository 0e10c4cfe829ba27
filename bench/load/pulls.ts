import { createHttp } from '../lib/http.ts'
import { readInput } from './input.ts'

/** Executors in one process: each connection pulls and completes until `jobs` have been completed in all. */
const input = await readInput<{
  readonly gateway: string
  readonly subscription: string
  readonly connections: number
  /** null: one job per pair of requests; else batches whose completes ride on the next pull. */
  readonly max: number | null
  readonly jobs: number
}>()

type Job = { readonly id: string; readonly lease: string }

const http = createHttp(input.connections)
const pullUrl = `${input.gateway}/subscriptions/${input.subscription}?wait=1`
let completed = 0

async function pullSingle(): Promise<void> {
  while (completed < input.jobs) {
    const { status, text } = await http.send('PATCH', pullUrl)
    if (status !== 200) continue
    const { id, lease } = JSON.parse(text) as Job
    await http.send('POST', `${input.gateway}/jobs/${id}/complete`, JSON.stringify({ lease }))
    completed += 1
  }
}

async function pullBatches(max: number): Promise<void> {
  let done: Job[] = []
  while (completed < input.jobs || done.length > 0) {
    const body = JSON.stringify({ complete: done.map(({ id, lease }) => ({ id, lease })) })
    const { status, text } = await http.send('PATCH', `${pullUrl}&max=${max}`, body)
    if (status !== 200) continue
    completed += done.length
    done = (JSON.parse(text) as { jobs: Job[] }).jobs
  }
}

const startedAt = performance.now()
const { max } = input
const executors = Array.from({ length: input.connections }, () =>
  max === null ? pullSingle() : pullBatches(max),
)
await Promise.all(executors)
console.log(JSON.stringify({ jobs: completed, seconds: (performance.now() - startedAt) / 1000 }))
http.close()
