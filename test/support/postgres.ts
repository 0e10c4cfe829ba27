import { randomBytes } from 'node:crypto'
import { mkdtempSync, chmodSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrations.ts'

export type TestServer = { readonly url: string; stop(): Promise<void> }

const settings = {
  // Durability is not what tests are about; time is.
  fsync: 'off',
  max_connections: '200',
  max_prepared_transactions: '10',
  shared_buffers: '64MB',
}

/** DATABASE_URL if set, else the embedded server, else a container; PULLGATE_TEST_POSTGRES=container skips the first two. */
export async function startServer(): Promise<TestServer> {
  const { DATABASE_URL: url, PULLGATE_TEST_POSTGRES: wanted } = process.env
  if (wanted !== undefined && wanted !== 'container') {
    throw new Error('PULLGATE_TEST_POSTGRES knows one value: container')
  }
  if (wanted === 'container') return startContainer()
  if (url !== undefined && url !== '') return { url, stop: () => Promise.resolve() }
  const scratch = mkdtempSync(join(tmpdir(), 'pullgate-test-'))
  chmodSync(scratch, 0o755)
  const remove = () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 })
  try {
    const server = await startEmbeddedPostgres({ dataDir: join(scratch, 'data'), keep: false, settings })
    return { url: server.url, stop: () => server.stop().finally(remove) }
  } catch (error) {
    remove()
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
