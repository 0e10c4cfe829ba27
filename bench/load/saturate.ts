import { connectAll } from './connections.ts'
import { finish, readInput, sayReady } from './process.ts'

/** Publishers as fast as they can: each connection repeats the statement for `seconds`. */
const input = readInput() as {
  readonly databaseUrl: string
  readonly connections: number
  readonly statement: string
  /** The statement's $1, round robin over all connections; none: it has no parameter. */
  readonly parameters?: readonly string[]
  readonly seconds: number
}

const clients = await connectAll(input.databaseUrl, input.connections)
sayReady()
const { parameters = [] } = input
let done = 0
const startedAt = performance.now()
const until = startedAt + input.seconds * 1000
await Promise.all(
  clients.map(async (client) => {
    while (performance.now() < until) {
      const values = parameters.length === 0 ? [] : [parameters[done % parameters.length]]
      done += 1
      await client.query({ name: 'load', text: input.statement, values })
    }
  }),
)
finish({ done, seconds: (performance.now() - startedAt) / 1000 })
