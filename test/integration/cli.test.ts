import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { withClient } from '../../src/db/home.ts'
import { useDatabase } from '../support/database.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { runCli, startCli, started, startGatewayProcess } from '../support/process.ts'

const database = useDatabase()

/** A database without the schema, dropped after the test. */
async function emptyDatabase(
  template = 'template1',
): Promise<{ url: string; query(sql: string): Promise<pg.QueryResult> }> {
  const name = `pullgate_cli_${randomBytes(4).toString('hex')}`
  const serverUrl = inject('serverUrl')
  await runOnce(serverUrl, `create database ${name} template ${template}`)
  onTestFinished(() => runOnce(serverUrl, `drop database ${name} with (force)`))
  const url = withDatabase(serverUrl, name)
  return { url, query: (sql) => withClient(url, (client) => client.query(sql)) }
}

function migrated() {
  return emptyDatabase(inject('template'))
}

function scratchDir(): string {
  const scratch = mkdtempSync(join(tmpdir(), 'pullgate-cli-'))
  chmodSync(scratch, 0o755)
  onTestFinished(() => rmSync(scratch, { recursive: true, force: true, maxRetries: 10 }))
  return scratch
}

const serve = (url: string) =>
  runCli(['serve'], { DATABASE_URL: url, PULLGATE_PORT: 0, PULLGATE_CONNECT_WAIT_SECONDS: 0 })

test('serve without the schema exits 1 and names pullgate migrate; two at once bring it; a third has nothing to do', async () => {
  const { url, query } = await emptyDatabase()
  const refused = await serve(url)
  expect(refused.exit).toBe(1)
  expect(refused.output).toContain('no pullgate schema: run `pullgate migrate`')
  const both = await Promise.all([
    runCli(['migrate'], { DATABASE_URL: url }),
    runCli(['migrate'], { DATABASE_URL: url }),
  ])
  expect(both.map(({ exit }) => exit)).toEqual([0, 0])
  expect(both.filter(({ output }) => output.includes('applied migrations/000001_tables.sql'))).toHaveLength(1)
  expect(both.filter(({ output }) => output.includes('nothing to do'))).toHaveLength(1)
  const third = await runCli(['migrate'], { DATABASE_URL: url })
  expect(third).toEqual({ exit: 0, output: expect.stringContaining('nothing to do') as string })
  await query(`select pullgate.publish('t', '1'::text)`)
})

test('serve on an older schema exits 1 and names pullgate migrate, which mends it', async () => {
  const { url, query } = await migrated()
  await query(`update pullgate.function_file set checksum = 'of an older version' where name = 'claim.sql'`)
  const refused = await serve(url)
  expect(refused.exit).toBe(1)
  expect(refused.output).toMatch(/older than this version: run `pullgate migrate`/)
  expect((await runCli(['migrate'], { DATABASE_URL: url })).output).toContain('applied functions/claim.sql')
  const gateway = await startGatewayProcess({ url })
  gateway.signal('SIGTERM')
  expect(await gateway.exited).toBe(0)
})

test('serve on a newer schema runs, unless that is breaking: exit 57; migrate refuses both', async () => {
  const { url, query } = await migrated()
  const newer = (revision: number, breaking: boolean) =>
    query(`insert into pullgate.migration (revision, name, checksum, breaking)
      values (${revision}, 'later', 'x', ${breaking})`)
  await newer(900_000, false)
  const gateway = await startGatewayProcess({ url })
  gateway.signal('SIGTERM')
  expect(await gateway.exited).toBe(0)
  await newer(900_001, true)
  const refused = await serve(url)
  expect(refused.exit).toBe(57)
  expect(refused.output).toContain('upgrade pullgate')
  const migrate = await runCli(['migrate'], { DATABASE_URL: url })
  expect(migrate.exit).toBe(1)
  expect(migrate.output).toContain('revision 900001')
})

test('roles creates the roles, and can be repeated', async () => {
  const { url, query } = await migrated()
  for (let run = 0; run < 2; run += 1) expect((await runCli(['roles'], { DATABASE_URL: url })).exit).toBe(0)
  const roles = await query(
    `select r as name from unnest(array['publisher', 'gateway', 'monitor']) r
      where has_schema_privilege('pullgate_' || r, 'pullgate', 'usage')`,
  )
  expect(roles.rows).toHaveLength(3)
})

test('health exits 0 while the gateway is ready, else 1', async () => {
  const gateway = await startGatewayProcess(database, { PULLGATE_ADMIN_PORT: 0 })
  const port = new URL(gateway.adminUrl).port
  const healthy = await runCli(['health'], { PULLGATE_ADMIN_PORT: port })
  expect(healthy).toEqual({ exit: 0, output: 'ok\n' })
  gateway.signal('SIGTERM')
  expect(await gateway.exited).toBe(0)
  const gone = await runCli(['health'], { PULLGATE_ADMIN_PORT: port })
  expect(gone.exit).toBe(1)
  expect(gone.output).toContain(
    `pullgate: no gateway answers at http://127.0.0.1:${port}: check PULLGATE_PORT or`,
  )
  expect(gone.output).toContain('ECONNREFUSED')
})

test('a bad configuration lists every mistake and repeats no value', async () => {
  const { exit, output } = await runCli(['serve'], {
    ...{ DATABASE_URL: 'mysql://user:hunter2@host/db', PULLGATE_PORT: 'hunter3', PULLGATE_PROT: 'hunter4' },
    ...{ PULLGATE_LOG_LEVEL: 'loud-hunter5', PULLGATE_BACKSTOP_MS: 5 },
  })
  expect(exit).toBe(1)
  for (const key of [
    'DATABASE_URL',
    'PULLGATE_PORT',
    'PULLGATE_PROT',
    'PULLGATE_LOG_LEVEL',
    'PULLGATE_BACKSTOP_MS',
  ]) {
    expect(output).toMatch(new RegExp(`^ *${key}: \\S`, 'm'))
  }
  expect(output).not.toMatch(/hunter|\n {4}at /)
  expect(output).toContain('PULLGATE_PROT: is not a setting of pullgate: see docs/configuration.md')
  const open = await runCli(['serve'], { DATABASE_URL: database.url, PULLGATE_HOST: '0.0.0.0' })
  expect([open.exit, open.output]).toEqual([1, expect.stringContaining('PULLGATE_AUTH=off') as string])
})

test('a port in use is said so, and the process ends', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  onTestFinished(() => void taken.close())
  const { port } = taken.address() as AddressInfo
  const { exit, output } = await runCli(['serve'], { DATABASE_URL: database.url, PULLGATE_PORT: port })
  expect(exit).toBe(1)
  expect(output).toContain(`cannot listen on 127.0.0.1:${port} (EADDRINUSE): choose another PULLGATE_PORT`)
})

test('a database that is not there is said so', async () => {
  const { exit, output } = await serve('postgres://nobody:hunter2@127.0.0.1:1/none')
  expect([exit, output]).toEqual([1, expect.stringContaining('ECONNREFUSED') as string])
  expect(output).not.toContain('hunter2')
})

test('without DATABASE_URL serve brings its own Postgres, and takes it down on SIGTERM', async () => {
  const dataDir = join(scratchDir(), 'postgres')
  const gateway = await started(startCli(['serve'], { PULLGATE_DATA_DIR: dataDir, PULLGATE_PORT: 0 }))
  onTestFinished(async () => {
    gateway.signal('SIGTERM')
    await gateway.exited
  })
  expect(await (await fetch(`${gateway.url}/readyz`)).text()).toBe('ok\n')
  const subscription = await gateway.subscribe('own')
  const id = await gateway.publish('own', '{"a":1}')
  expect((await gateway.pull(subscription, { wait: 50 })).body).toMatchObject({ id, jobSpec: { a: 1 } })
  const shown = await runCli(['url'], { PULLGATE_DATA_DIR: dataDir })
  const url = shown.output.trim()
  await runOnce(url, `select pullgate.publish('own', '2')`)
  expect((await gateway.pull(subscription, { wait: 50 })).body).toMatchObject({ jobSpec: 2 })
  gateway.signal('SIGTERM')
  expect(await gateway.exited).toBe(0)
  expect(existsSync(join(dataDir, 'postmaster.pid'))).toBe(false)
  const gone = await runCli(['url'], { PULLGATE_DATA_DIR: dataDir })
  expect([gone.exit, gone.output]).toEqual([1, expect.stringContaining('start it with `npm start`')])
})

test('demo --once publishes, checks and sums up, and leaves nothing behind', async () => {
  const scratch = scratchDir()
  const { exit, output } = await runCli(['demo', '--once'], { TMPDIR: scratch })
  expect(exit, output).toBe(0)
  expect(output).toMatch(/^published 200, delivered 200; publish → executor p50 [\d.]+ ms, p99 [\d.]+ ms$/m)
  expect(output).toContain('each job arrived exactly once and unchanged')
  expect(output).not.toContain('postgres://')
})

test('demo --once ends in order although nobody reads its output any more', async () => {
  const scratch = scratchDir()
  const cli = startCli(['demo', '--once'], { TMPDIR: scratch })
  cli.child.stdout?.destroy()
  expect(await cli.exited, cli.output).toBe(0)
  // A server that was left running would still have its directory here.
  expect(readdirSync(scratch).filter((name) => name.startsWith('pullgate-demo-'))).toEqual([])
})

test('demo keeps a data directory that it was given: it may hold the jobs of serve', async () => {
  const dataDir = join(scratchDir(), 'postgres')
  const { exit, output } = await runCli(['demo', '--once'], { PULLGATE_DATA_DIR: dataDir })
  expect(exit, output).toBe(0)
  expect(existsSync(join(dataDir, 'PG_VERSION'))).toBe(true)
})

test('what the command does not know is an error that leads to the help', async () => {
  const [unknown, help, surplus] = await Promise.all([
    runCli(['sevre']),
    runCli(['help']),
    runCli(['serve', 'now'], { DATABASE_URL: database.url }),
  ])
  expect([unknown.exit, unknown.output]).toEqual([1, 'pullgate: unknown command: sevre; see pullgate help\n'])
  expect(surplus).toEqual({ exit: 1, output: 'pullgate: unexpected argument: now; see pullgate help\n' })
  expect(help.exit).toBe(0)
  for (const command of ['serve', 'migrate', 'roles', 'health', 'demo', 'version']) {
    expect(help.output).toContain(`pullgate ${command}`)
  }
})
