import pg from 'pg'
import { asError } from '../domain/errors.ts'
import { serversOf } from '../domain/database-url.ts'
import { openSession, ReadOnlyServer } from './session.ts'
import { withTlsOfLibpq } from './tls-mode.ts'

/**
 * Which of the servers of a URL is the primary. node-postgres knows one host per URL only, so this does what libpq
 * does for `target_session_attrs=read-write`: it tries them in order, the one that was the primary last first.
 */
export type Primary = {
  /** For reading user, database and parameters, which all servers share. */
  readonly anyServer: string
  /** The URL of one server, for pg. A single one is not asked. Rejects if none of several takes writes now. */
  find(): Promise<string>
}

export function createPrimary(url: string, connectTimeoutMs: number): Primary {
  const servers = serversOf(url).map((server) => withTlsOfLibpq(server)) as [string, ...string[]]
  let last = servers[0]
  let finding: Promise<string> | undefined

  async function search(): Promise<string> {
    const problems: Error[] = []
    for (const server of [last, ...servers.filter((one) => one !== last)]) {
      try {
        await probe(server, connectTimeoutMs / servers.length)
        last = server
        return server
      } catch (error) {
        problems.push(asError(error))
      }
    }
    const said = problems.map(({ message }, index) => `${index + 1}: ${message}`).join('; ')
    const text = `none of ${servers.length} servers is a primary that answers (${said})`
    throw problems.some((problem) => problem instanceof ReadOnlyServer)
      ? new ReadOnlyServer(text)
      : Object.assign(new Error(text, { cause: problems[0] }), { code: 'EHOSTUNREACH' })
  }

  return {
    anyServer: servers[0],
    find() {
      if (servers.length === 1) return Promise.resolve(servers[0])
      // All who open a connection at once share one search.
      finding ??= search().finally(() => (finding = undefined))
      return finding
    },
  }
}

async function probe(server: string, timeoutMs: number): Promise<void> {
  // pg counts anew for each of the two.
  const limits = { connectionTimeoutMillis: timeoutMs / 2, query_timeout: timeoutMs / 2 }
  const client = new pg.Client({ connectionString: server, ...limits })
  // Rejected promises say all there is to say.
  client.on('error', () => undefined)
  try {
    await client.connect()
    await openSession(client)
  } finally {
    client.end().catch(() => undefined)
  }
}

/** For a pool: a client that finds the primary when it connects. Its options have to name `anyServer`. */
export function clientFor(primary: Primary): typeof pg.Client {
  type Connected = ((error: Error) => void) | ((error: null, client: pg.Client) => void)
  return class extends pg.Client {
    async #goToPrimary(): Promise<void> {
      const server = await primary.find()
      if (server === primary.anyServer) return
      const { host, port } = new pg.Client({ connectionString: server })
      Object.assign(this, { host, port })
    }

    override connect(): Promise<pg.Client>
    override connect(callback: Connected): void
    override connect(callback?: Connected): Promise<pg.Client> | undefined {
      if (callback === undefined) return this.#goToPrimary().then(() => super.connect())
      // Called by pg itself: the pool has to hear of errors from the moment that the connection is ready, and one may
      // come with the same bytes.
      this.#goToPrimary().then(() => super.connect(callback), callback as (error: Error) => void)
      return undefined
    }
  }
}
