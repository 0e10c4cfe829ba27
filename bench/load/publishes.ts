import pg from 'pg'
import { readInput } from './input.ts'

/** Publishers in one process: each connection repeats the statement for `seconds`; rate in all. */
const input = await readInput<{
  readonly databaseUrl: string
  readonly connections: number
  readonly statement: string
  readonly seconds: number
}>()

let done = 0
const clients = await Promise.all(
  Array.from({ length: input.connections }, async () => {
    const client = new pg.Client({ connectionString: input.databaseUrl })
    await client.connect()
    return client
  }),
)
const startedAt = performance.now()
const until = startedAt + input.seconds * 1000
await Promise.all(
  clients.map(async (client) => {
    while (performance.now() < until) {
      await client.query({ name: 'load', text: input.statement })
      done += 1
    }
  }),
)
const seconds = (performance.now() - startedAt) / 1000
await Promise.all(clients.map((client) => client.end()))
console.log(JSON.stringify({ done, seconds }))
