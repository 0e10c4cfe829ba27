import type pg from 'pg'
import { now, rounded, sleep } from '../lib/time.ts'
import { offsets } from '../lib/shape.ts'
import type { Shape } from '../lib/shape.ts'
import { connectAll } from './connections.ts'
import { finish, readInput, sayReady, stop } from './process.ts'

/**
 * Publishers in an open loop: job n is due at its scheduled instant, whether or not a connection is free by then, and
 * everything is counted from that instant. Its spec is {"n": n}.
 */
const input = readInput() as {
  readonly databaseUrl: string
  readonly connections: number
  readonly statement: string
  readonly setup?: string
  readonly shape: Shape
  /**
   * All publish in a transaction of three statements; every so many-th commits `ms` after its publish, on connections
   * of its own.
   */
  readonly late?: { readonly every: number; readonly ms: number }
}

const text = input.statement
const schedule = offsets(input.shape)
const scheduledAt: number[] = []
const acknowledgedAt: number[] = new Array<number>(schedule.length).fill(Infinity)
const committedAt: number[] = []

const free = await connectAll(input.databaseUrl, input.connections, input.setup)
const lateFree = input.late === undefined ? [] : await connectAll(input.databaseUrl, 32, input.setup)
// Planned before the clock starts; the transaction is rolled back, so nothing is published.
for (const client of [...free, ...lateFree]) {
  await client.query('begin')
  await client.query({ name: 'publish', text, values: ['{"n": -1}'] })
  await client.query('rollback')
}

const due: number[] = []
const lateDue: number[] = []
let underWay = 0

async function publish(client: pg.Client, n: number): Promise<void> {
  const values = [`{"n": ${n}}`]
  committedAt[n] = rounded(now())
  await client.query({ name: 'publish', text, values })
  acknowledgedAt[n] = rounded(now())
}

async function publishIn(client: pg.Client, n: number, ms: number): Promise<void> {
  await client.query('begin')
  await client.query({ name: 'publish', text, values: [`{"n": ${n}}`] })
  if (ms > 0) await sleep(ms)
  committedAt[n] = rounded(now())
  await client.query('commit')
  acknowledgedAt[n] = rounded(now())
}

function pump(
  queue: number[],
  clients: pg.Client[],
  work: (client: pg.Client, n: number) => Promise<void>,
): void {
  while (queue.length > 0) {
    const client = clients.pop()
    if (client === undefined) return
    const n = queue.shift() ?? 0
    underWay += 1
    void work(client, n).finally(() => {
      underWay -= 1
      clients.push(client)
      pump(queue, clients, work)
    })
  }
}

function isLate(n: number): boolean {
  return input.late !== undefined && n % input.late.every === 0
}

sayReady()
const startAt = now() + 50
let next = 0
while (next < schedule.length && !stop.asked) {
  const elapsed = now() - startAt
  for (let offset = schedule[next]; offset !== undefined && offset <= elapsed; offset = schedule[next]) {
    scheduledAt[next] = rounded(startAt + offset)
    ;(isLate(next) ? lateDue : due).push(next)
    next += 1
  }
  pump(due, free, input.late === undefined ? publish : (client, n) => publishIn(client, n, 0))
  pump(lateDue, lateFree, (client, n) => publishIn(client, n, input.late?.ms ?? 0))
  await sleep(1)
}
const drainUntil = now() + 15_000
while (due.length + lateDue.length + underWay > 0 && now() < drainUntil) await sleep(10)
finish({
  scheduledAt,
  acknowledgedAt: acknowledgedAt.map((at) => (at === Infinity ? null : at)),
  committedAt,
})
