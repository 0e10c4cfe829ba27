import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrations.ts'

/** What a target is measured on: a Postgres of its own with durability on, real gateway processes, helpers. */
export type Rig = {
  readonly url: string
  readonly postgresVersion: string
  connect(options?: pg.ClientConfig): Promise<pg.Client>
  /** A gateway process; `env` adds to its configuration. */
  gateway(
    env?: Record<string, string>,
  ): Promise<{ readonly url: string; readonly pid: number; stop(): Promise<void> }>
  /** Another script of this folder in a process of its own; resolves to the JSON it prints on its last line. */
  load(script: string, input: unknown): Promise<unknown>
  /** Empties the queue between measurements. */
  reset(): Promise<void>
  close(): Promise<void>
}

const repo = new URL('../../', import.meta.url)

export async function startRig(): Promise<Rig> {
  const scratch = mkdtempSync(join(tmpdir(), 'pullgate-bench-'))
  chmodSync(scratch, 0o755)
  // fsync and synchronous_commit stay on: the commit is what is measured.
  const server = await startEmbeddedPostgres({
    dataDir: join(scratch, 'data'),
    keep: false,
    settings: { max_connections: '300', shared_buffers: '512MB', max_wal_size: '4GB' },
  })
  const clients: pg.Client[] = []
  const children = new Set<ChildProcess>()

  async function connect(options: pg.ClientConfig = {}): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: server.url, ...options })
    await client.connect()
    clients.push(client)
    return client
  }
  const admin = await connect()
  await migrate(admin)
  const { rows } = await admin.query<{ server_version: string }>('show server_version')

  function start(
    args: readonly string[],
    env: Record<string, string>,
    stdin: 'pipe' | 'ignore',
  ): ChildProcess {
    const child = spawn(process.execPath, ['--import', 'tsx', ...args], {
      cwd: repo,
      env: { ...process.env, ...env },
      stdio: [stdin, 'pipe', 'inherit'],
    })
    children.add(child)
    child.once('exit', () => children.delete(child))
    return child
  }
  async function stop(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill('SIGTERM')
    await exit
  }

  return {
    url: server.url,
    postgresVersion: rows[0]?.server_version ?? '',
    connect,
    async gateway(env = {}) {
      const child = start(
        ['src/cli/pullgate.ts', 'serve'],
        { DATABASE_URL: server.url, PULLGATE_PORT: '0', ...env },
        'ignore',
      )
      if (child.stdout === null) throw new Error('no output of the gateway')
      for await (const line of createInterface({ input: child.stdout })) {
        const entry = JSON.parse(line) as { event: string; url: string }
        if (entry.event !== 'started') continue
        child.stdout.resume()
        return { url: entry.url, pid: child.pid ?? 0, stop: () => stop(child) }
      }
      throw new Error('the gateway ended before it served')
    },
    async load(script, input) {
      const child = start([`bench/load/${script}`], {}, 'pipe')
      child.stdin?.end(JSON.stringify({ ...(input as object), databaseUrl: server.url }))
      let last = ''
      if (child.stdout === null) throw new Error('no output of the load')
      for await (const line of createInterface({ input: child.stdout })) last = line
      if (child.exitCode === null) await once(child, 'exit')
      if (child.exitCode !== 0) throw new Error(`${script} failed`)
      return JSON.parse(last) as unknown
    },
    async reset() {
      await admin.query(
        'truncate pullgate.job, pullgate.history, pullgate.lane, pullgate.topic, pullgate.subscription',
      )
      await admin.query('vacuum analyze pullgate.job')
    },
    async close() {
      await Promise.all([...children].map(stop))
      await Promise.all(clients.map((client) => client.end().catch(() => undefined)))
      await server.stop()
      rmSync(scratch, { recursive: true, force: true })
    },
  }
}
