import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrations.ts'
import { createChildren } from './children.ts'
import type { Children, Gateway } from './children.ts'

/** What a target is measured on: a Postgres of its own with durability on, real gateway processes, helpers. */
export type Rig = Omit<Children, 'gateway' | 'stopAll'> & {
  readonly url: string
  readonly postgresVersion: string
  /** A session of the database under measurement, or of another one by its URL. */
  connect(url?: string): Promise<pg.Client>
  /** A session of another database: what it does is not counted with the one under measurement. */
  observer(): Promise<pg.Client>
  /** A further database of the same server, empty or with pullgate's schema; its URL. Made anew at each call. */
  database(name: string, content: 'empty' | 'pullgate'): Promise<string>
  /** A gateway process, from dist; `environment` adds to its configuration. */
  gateway(environment?: Record<string, string>): Promise<Gateway>
  /** Empties the queue between measurements. */
  reset(): Promise<void>
  /** Ends the processes and sessions that a measurement has left. */
  tidy(): Promise<void>
  close(): Promise<void>
}

const tables = 'pullgate.job, pullgate.history, pullgate.lane, pullgate.topic, pullgate.subscription'

function withDatabase(url: string, name: string): string {
  const changed = new URL(url)
  changed.pathname = `/${name}`
  return changed.href
}

/** A gateway that is up takes locks on the same tables, in the order of its statements: one of both has to yield. */
async function truncate(admin: pg.Client): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await admin.query(`truncate ${tables}`)
      return
    } catch (error) {
      if (!(error instanceof pg.DatabaseError) || error.code !== '40P01' || tries === 10) throw error
    }
  }
}

export async function startRig(): Promise<Rig> {
  const scratch = mkdtempSync(join(tmpdir(), 'pullgate-bench-'))
  chmodSync(scratch, 0o755)
  // fsync and synchronous_commit stay on: the commit is what is measured.
  const server = await startEmbeddedPostgres({
    dataDir: join(scratch, 'data'),
    keep: false,
    settings: { max_connections: '300', shared_buffers: '512MB', max_wal_size: '4GB' },
  })
  const children = createChildren(server.url)
  const clients = new Set<pg.Client>()

  async function open(url: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url, application_name: 'bench' })
    await client.connect()
    return client
  }
  async function connect(url = server.url): Promise<pg.Client> {
    const client = await open(url)
    clients.add(client)
    client.once('end', () => clients.delete(client))
    return client
  }
  const admin = await open(server.url)
  await migrate(admin)
  const { rows } = await admin.query<{ server_version: string }>('show server_version')

  async function tidy(): Promise<void> {
    await children.stopAll()
    await Promise.all([...clients].map((client) => client.end().catch(() => undefined)))
  }

  return {
    url: server.url,
    postgresVersion: rows[0]?.server_version ?? '',
    connect,
    observer: () => connect(withDatabase(server.url, 'template1')),
    async database(name, content) {
      await admin.query(`drop database if exists ${name} with (force)`)
      await admin.query(`create database ${name} template template0`)
      const url = withDatabase(server.url, name)
      if (content === 'pullgate') {
        const client = await open(url)
        await migrate(client)
        await client.end()
      }
      return url
    },
    gateway: (environment = {}) => children.gateway(environment),
    load: children.load,
    peer: children.peer,
    async reset() {
      await truncate(admin)
      await admin.query('vacuum analyze pullgate.job')
    },
    tidy,
    async close() {
      await tidy()
      await admin.end().catch(() => undefined)
      await server.stop()
      rmSync(scratch, { recursive: true, force: true })
    },
  }
}
