import pg from 'pg'

/** The session that listens is also what says that this gateway lives (sql/functions/gateway.sql). */

/** Takes an id and the lock on it, for as long as the session lasts. */
export async function joinGateway(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ id: number }>('select pullgate.join_gateway() as id')
  const [row] = rows
  if (row === undefined) throw new Error('pullgate.join_gateway returned no row')
  return row.id
}

/**
 * `make`, with the client that it makes at the side of what it returns. pg-listen keeps its client to itself and has no
 * way to run a statement, but the lock has to be its session's: so `pg.Client` is one that tells, until `make` returns.
 */
export function withItsClient<Args extends readonly unknown[], Made>(
  make: (...args: Args) => Made,
): (...args: Args) => Made & { readonly client: pg.Client } {
  return (...args) => {
    const { Client } = pg
    const replaceable = pg as { Client: typeof Client }
    const clients: pg.Client[] = []
    replaceable.Client = class extends Client {
      constructor(config?: string | pg.ClientConfig) {
        super(config)
        clients.push(this)
      }
    }
    try {
      const made = make(...args)
      const [client] = clients
      if (client === undefined) throw new Error('pg-listen has made no client with this copy of pg')
      return { ...made, client }
    } finally {
      replaceable.Client = Client
    }
  }
}
