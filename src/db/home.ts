import pg from 'pg'
import { defaultDataDir, startEmbeddedPostgres } from './embedded.ts'
import { migrate } from './migrations.ts'
import { createPrimary } from './primary.ts'

const connectTimeoutMs = 10_000

/** Where the jobs live: a Postgres of the operator's, or one of our own. */
export type Home = {
  readonly url: string
  /** Resolves if a server of our own ends by itself; never for the operator's. */
  readonly lost: Promise<void>
  close(): Promise<void>
}

/**
 * With `url` nothing is started and nothing changed. Without, the embedded Postgres starts on `dataDir` and is
 * migrated: it serves nobody else.
 */
export async function openHome(options: {
  readonly url: string | undefined
  readonly dataDir: string | undefined
  readonly keep: boolean
}): Promise<Home> {
  if (options.url !== undefined) {
    return { url: options.url, lost: new Promise(() => undefined), close: () => Promise.resolve() }
  }
  const server = await startEmbeddedPostgres({
    dataDir: options.dataDir ?? defaultDataDir(),
    keep: options.keep,
    settings: { max_connections: '200' },
  })
  try {
    await withClient(server.url, (client) => migrate(client))
  } catch (error) {
    await server.stop()
    throw error
  }
  return { url: server.url, lost: server.exited, close: server.stop }
}

export type Work<T> = (client: pg.Client) => Promise<T>

/** One connection for one piece of work. */
export async function withClient<T>(url: string, work: Work<T>): Promise<T> {
  const server = await createPrimary(url, connectTimeoutMs).find()
  const client = new pg.Client({ connectionString: server, connectionTimeoutMillis: connectTimeoutMs })
  // A server that goes away between two statements reports here; the statement after it fails by itself.
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}
