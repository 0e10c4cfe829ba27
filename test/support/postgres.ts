import { randomBytes } from 'node:crypto'
import { mkdtempSync, chmodSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { openGuard } from '../../src/db/embedded-guard.ts'
import type { Guard } from '../../src/db/embedded-guard.ts'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import type { EmbeddedPostgres } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrations.ts'
import { majors, testPackage } from './postgres-versions.ts'

export type TestServer = { readonly url: string; stop(): Promise<void> }

const settings = {
  // Durability is not what tests are about; time is.
  fsync: 'off',
  max_connections: '200',
  max_prepared_transactions: '10',
  shared_buffers: '64MB',
}

/** A directory below the temporary one for servers of a test's own. It goes, and they end, with this process at the latest. */
export type Scratch = {
  readonly path: string
  readonly guard: Guard
  /** A server on a directory of this name, of the version that the tests run on. It can be started there again. */
  start(
    name: string,
    options?: { port?: number; settings?: Readonly<Record<string, string>> },
  ): Promise<EmbeddedPostgres>
  /** Once its servers have ended. */
  remove(): void
}

export function openScratch(purpose: string): Scratch {
  const path = mkdtempSync(join(tmpdir(), `pullgate-${purpose}-`))
  // The account that runs Postgres has to get in.
  chmodSync(path, 0o755)
  const guard = openGuard([path])
  return {
    path,
    guard,
    async start(name, options = {}) {
      const packageDir = await testPackage()
      return startEmbeddedPostgres({
        ...options,
        dataDir: join(path, name),
        keep: true,
        guard,
        ...(packageDir === undefined ? {} : { packageDir }),
      })
    },
    remove() {
      rmSync(path, { recursive: true, force: true, maxRetries: 10 })
      guard.release()
    },
  }
}

/**
 * PULLGATE_TEST_POSTGRES names a version (14 to 18), or a container. Without it: DATABASE_URL if set, else the embedded
 * server, else a container.
 */
export async function startServer(): Promise<TestServer> {
  const { DATABASE_URL: url, PULLGATE_TEST_POSTGRES: wanted = '' } = process.env
  const known = ['container', ...majors]
  if (wanted !== '' && !known.includes(wanted)) {
    throw new Error(`PULLGATE_TEST_POSTGRES knows ${known.join(', ')}`)
  }
  if (wanted === 'container') return startContainer()
  if (wanted === '' && url !== undefined && url !== '') return { url, stop: () => Promise.resolve() }
  const scratch = openScratch('test')
  try {
    const server = await scratch.start('data', { settings })
    return { url: server.url, stop: () => server.stop().finally(scratch.remove) }
  } catch (error) {
    scratch.remove()
    if (wanted !== '') throw error
    console.log(`no embedded Postgres (${String(error)}); trying a container`)
    return startContainer()
  }
}

async function startContainer(): Promise<TestServer> {
  const { PostgreSqlContainer } = await import('@testcontainers/postgresql')
  const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const container = await new PostgreSqlContainer('postgres:18').withCommand(['postgres', ...options]).start()
  return { url: container.getConnectionUri(), stop: () => container.stop().then(() => undefined) }
}

export function withDatabase(url: string, database: string): string {
  const changed = new URL(url)
  changed.pathname = `/${database}`
  return changed.href
}

/** Runs one statement on a connection of its own. */
export async function runOnce(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

/** A database with the schema in it, to be cloned by each test file. */
export async function createTemplate(url: string): Promise<string> {
  const name = `pullgate_template_${randomBytes(4).toString('hex')}`
  await runOnce(url, `create database ${name}`)
  const client = new pg.Client({ connectionString: withDatabase(url, name) })
  await client.connect()
  try {
    await migrate(client)
  } finally {
    await client.end()
  }
  return name
}
