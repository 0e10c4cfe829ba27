import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Client } from 'pg'
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import {
  childOptions,
  findPackage,
  inspect,
  isAlive,
  prepareBinaries,
  serverAccount,
} from '../../src/db/embedded-binaries.ts'
import { defaultDataDir, type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/db/embedded.ts'
import { endsWithUs } from '../support/children.ts'
import { killGroup, startOwner } from '../support/embedded-owner.ts'
import { openScratch, type Scratch } from '../support/postgres.ts'

const account = serverAccount()
const asRoot = test.skipIf(!account.drop)
if (!account.drop) console.log('not root: the cases about changing the account are skipped')

let place: Scratch
let scratch: string
let dataDir: string
const servers: EmbeddedPostgres[] = []
const others: ChildProcess[] = []

beforeEach(() => {
  place = openScratch('embedded')
  scratch = place.path
  dataDir = join(scratch, 'data')
})

afterEach(async () => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
  for (const server of servers.splice(0)) await server.stop()
  for (const child of others.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGINT')
    await once(child, 'exit')
  }
  place.remove()
})

async function start(keep = true, settings: Record<string, string> = {}): Promise<EmbeddedPostgres> {
  const { guard } = place
  const server = await startEmbeddedPostgres({
    dataDir,
    keep,
    guard,
    settings: { fsync: 'off', ...settings },
  })
  servers.push(server)
  return server
}

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    const result = await client.query<Record<string, unknown>>(sql)
    return result.rows.map((row) => Object.values(row)[0])
  } finally {
    await client.end()
  }
}

/** Sends the signal after the test if the process is still there, so that a failure leaves none behind. */
function cleanUp(pid: number, signal: NodeJS.Signals): string {
  const { identity = '' } = inspect(pid) ?? {}
  place.guard.watch(pid, 'QUIT', new Promise(() => undefined))
  onTestFinished(() => {
    if (isAlive(identity)) process.kill(pid, signal)
  })
  return identity
}

function otherOwner(): ChildProcess {
  const owner = startOwner(dataDir, true)
  others.push(owner)
  return owner
}

function packageCopy(dir: string): string {
  const copy = join(dir, 'package')
  fs.cpSync(findPackage(), copy, { recursive: true, verbatimSymlinks: true })
  return copy
}

asRoot('as root, server and data directory belong to an ordinary account', async () => {
  const server = await start()
  const stat = fs.statSync(dataDir)
  expect([stat.uid, stat.mode & 0o777]).toEqual([account.uid, 0o700])
  expect(fs.statSync(`/proc/${server.pid}`).uid).toBe(account.uid)
})

test('listens on 127.0.0.1 alone and asks for the password, which only its file shows', async () => {
  const write = vi.spyOn(process.stdout, 'write')
  const server = await start()
  const { password, host, port } = new Client({ connectionString: server.url })
  expect(await query(server.url, 'show listen_addresses')).toEqual(['127.0.0.1'])
  expect(await query(server.url, 'show unix_socket_directories')).toEqual([''])
  expect(await query(server.url, 'show password_encryption')).toEqual(['scram-sha-256'])
  const guess = query(`postgres://postgres:wrong@${host}:${port}/postgres`, 'select 1')
  await expect(guess).rejects.toThrow('password authentication failed')
  expect(password).toMatch(/^\w{48}$/)
  expect(fs.statSync(join(dataDir, 'pullgate-password')).mode & 0o777).toBe(0o600)
  expect(inspect(server.pid)?.args).not.toContain(password)
  expect(JSON.stringify(write.mock.calls)).not.toContain(password)
})

test('a second start finds data and password of the first', async () => {
  const first = await start()
  await query(first.url, 'create table kept as select 7 as n')
  await Promise.all([first.stop(), first.stop()])
  await first.exited
  const second = await start()
  expect(await query(second.url, 'select n from kept')).toEqual([7])
  expect(new URL(second.url).password).toBe(new URL(first.url).password)
})

test('without keep, stop removes the data directory and everything beside it', async () => {
  const server = await start(false)
  await server.stop()
  expect(fs.readdirSync(scratch)).toEqual([])
})

test('a failed start without keep leaves nothing and says what Postgres said', async () => {
  await expect(start(false, { shared_buffers: 'bogus' })).rejects.toThrow(
    /invalid value for parameter "shared_buffers"[^]*DATABASE_URL/,
  )
  expect(fs.readdirSync(scratch)).toEqual([])
})

test('a data directory or port in use is refused, and its server goes on', async () => {
  const server = await start()
  await expect(start()).rejects.toThrow(`in use by pid ${process.pid};`)
  const other = { dataDir: join(scratch, 'other'), port: Number(new URL(server.url).port), keep: false }
  await expect(startEmbeddedPostgres(other)).rejects.toThrow('could not bind')
  expect(await query(server.url, 'select 1')).toEqual([1])
})

test('a live server that pullgate did not start is left alone', async () => {
  const own = await start()
  await own.stop()
  const { postgres } = await prepareBinaries()
  const args = ['-D', dataDir, '-p', new URL(own.url).port, '-k', '']
  const foreign = spawn(postgres, args, { ...childOptions(account), stdio: ['ignore', 'ignore', 'pipe'] })
  others.push(endsWithUs(foreign))
  let printed = ''
  for await (const chunk of foreign.stderr as AsyncIterable<Buffer>) {
    printed += chunk.toString()
    if (printed.includes('ready to accept connections')) break
  }
  expect(printed).toContain('ready to accept connections')
  const pid = foreign.pid ?? 0
  await expect(start()).rejects.toThrow(`in use by pid ${pid};`)
  expect(inspect(pid)?.command).toBe('postgres')
})

test('after the server is killed, a start waits for its last child and recovers', async () => {
  const first = await start()
  await query(first.url, 'create table kept as select 7 as n')
  const client = new Client({ connectionString: first.url })
  client.on('error', () => undefined)
  await client.connect()
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  const backend = rows[0]?.pid ?? 0
  cleanUp(backend, 'SIGCONT')
  process.kill(backend, 'SIGSTOP')
  process.kill(first.pid, 'SIGKILL')
  await first.exited
  const second = start()
  const children = () => fs.readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ')
  const launched = () => children().some((pid) => inspect(Number(pid))?.args.includes(dataDir))
  await vi.waitFor(() => expect(launched()).toBe(true), { timeout: 120_000, interval: 2 })
  await vi.waitFor(() => expect(launched()).toBe(false), { timeout: 120_000, interval: 2 })
  process.kill(backend, 'SIGCONT')
  expect(await query((await second).url, 'select n from kept')).toEqual([7])
})

test('a stale postmaster.pid that names an unrelated process does not prevent a start', async () => {
  const first = await start()
  const file = join(dataDir, 'postmaster.pid')
  const text = fs.readFileSync(file, 'utf8')
  await first.stop()
  const unrelated = spawn('sleep', ['600'], { ...childOptions(account), stdio: 'ignore' })
  others.push(endsWithUs(unrelated))
  await once(unrelated, 'spawn')
  fs.writeFileSync(file, text.replace(/^\d+/, String(unrelated.pid)), { mode: 0o600 })
  if (account.drop) fs.chownSync(file, account.uid, account.gid)
  const second = await start()
  expect(await query(second.url, 'select 1')).toEqual([1])
  expect(unrelated.exitCode ?? unrelated.signalCode).toBeNull()
})

test('the server outlives a kill of its owner, and the next start replaces it', async () => {
  const owner = otherOwner()
  const [pid] = (await once(owner, 'message')) as [number]
  const identity = cleanUp(pid, 'SIGINT')
  await expect(start()).rejects.toThrow(`in use by pid ${owner.pid ?? 0};`)
  await killGroup(owner)
  expect(isAlive(identity)).toBe(true)
  const server = await start()
  expect(isAlive(identity)).toBe(false)
  expect(await query(server.url, 'select 1')).toEqual([1])
})

test('a start after a kill during initdb begins anew', async () => {
  const owner = otherOwner()
  const staged = () => fs.readdirSync(scratch).some((name) => fs.existsSync(join(scratch, name, 'data/base')))
  await vi.waitFor(() => expect(staged()).toBe(true), { timeout: 120_000, interval: 2 })
  await killGroup(owner)
  expect(fs.existsSync(dataDir)).toBe(false)
  const server = await start()
  expect(await query(server.url, 'select 1')).toEqual([1])
  expect(fs.readdirSync(scratch).sort()).toEqual(['data', 'data.owner'])
})

test('a directory left half-made is replaced, one with other contents or version refused', async () => {
  fs.mkdirSync(join(dataDir, 'global'), { recursive: true })
  fs.writeFileSync(join(dataDir, 'PG_VERSION'), '18\n')
  fs.writeFileSync(join(dataDir, 'notes.txt'), 'mine')
  if (account.drop) fs.chownSync(dataDir, account.uid, account.gid)
  await expect(start()).rejects.toThrow(/did not create.*DATABASE_URL/)
  expect(fs.readFileSync(join(dataDir, 'notes.txt'), 'utf8')).toBe('mine')
  fs.rmSync(join(dataDir, 'notes.txt'))
  const server = await start()
  expect(await query(server.url, 'select 1')).toEqual([1])
  await server.stop()
  fs.writeFileSync(join(dataDir, 'PG_VERSION'), '15\n')
  await expect(start()).rejects.toThrow(/holds data of Postgres 15.*dump it.*DATABASE_URL/)
})

asRoot('binaries in a closed directory are copied once, finished and checked', async () => {
  const closed = join(scratch, 'closed')
  fs.mkdirSync(closed, { mode: 0o700 })
  const source = packageCopy(closed)
  // As npm leaves it when it runs no install scripts.
  fs.rmSync(join(source, 'native/lib/libpq.so.5'))
  fs.chmodSync(join(source, 'native/bin/postgres'), 0o644)
  vi.stubEnv('TMPDIR', scratch)
  const [one, two] = await Promise.all([prepareBinaries(source), prepareBinaries(source)])
  expect(one).toEqual(two)
  const copy = dirname(dirname(dirname(one.postgres)))
  expect(dirname(copy)).toBe(scratch)
  expect(fs.readlinkSync(join(copy, 'native/lib/libpq.so.5'))).toMatch(/^libpq\.so\.5\.\d+$/)
  expect(fs.readdirSync(scratch)).toHaveLength(2)
  const made = fs.statSync(copy).ino
  await prepareBinaries(source)
  expect(fs.statSync(copy).ino).toBe(made)
  fs.rmSync(join(copy, 'native/share/postgresql/postgres.bki'))
  await prepareBinaries(source)
  expect(fs.existsSync(join(copy, 'native/share/postgresql/postgres.bki'))).toBe(true)
  fs.chmodSync(copy, 0o775)
  await expect(prepareBinaries(source)).rejects.toThrow(/only this user can write to.*DATABASE_URL/)
})

test('an install without scripts is finished in place', async () => {
  const source = packageCopy(scratch)
  fs.rmSync(join(source, 'native/lib/libpq.so.5'))
  fs.chmodSync(join(source, 'native/bin/initdb'), 0o644)
  const { initdb, major } = await prepareBinaries(source)
  expect([initdb, major]).toEqual([join(source, 'native/bin/initdb'), '18'])
  expect(fs.statSync(initdb).mode & 0o111).toBe(0o111)
  expect(fs.existsSync(join(source, 'native/lib/libpq.so.5'))).toBe(true)
})

test('binaries that are missing or do not run are an error that names the way out', async () => {
  expect(() => findPackage(join(scratch, 'module.js'))).toThrow(/not installed; set DATABASE_URL/)
  const source = join(scratch, 'package')
  fs.mkdirSync(join(source, 'native/bin'), { recursive: true })
  const failureOf = (script: string) => {
    fs.writeFileSync(join(source, 'native/bin/postgres'), script, { mode: 0o755 })
    return prepareBinaries(source)
  }
  const noLibrary = '#!/bin/sh\necho "libxml2.so.2: cannot open shared object file" >&2\nexit 127'
  await expect(failureOf(noLibrary)).rejects.toThrow(/libxml2.*set DATABASE_URL/)
  await expect(failureOf('#!/no/such/loader\n')).rejects.toThrow(/is glibc missing.*set DATABASE_URL/)
})

test('the default data directory is in the checkout, or else a stable one per checkout', () => {
  const cwd = vi.spyOn(process, 'cwd')
  const checkouts = ['a', 'b'].map((name) => join(scratch, name))
  const defaults = () => checkouts.map((checkout) => (cwd.mockReturnValue(checkout), defaultDataDir()))
  for (const checkout of checkouts) fs.mkdirSync(checkout, { mode: 0o755 })
  expect(defaults()).toEqual(checkouts.map((checkout) => join(checkout, '.pullgate/postgres')))
  // Closed to the account for root, closed to ourselves otherwise.
  for (const checkout of checkouts) fs.chmodSync(checkout, account.drop ? 0o700 : 0o500)
  const [a, b] = defaults()
  expect(a).not.toBe(b)
  expect(dirname(dirname(a ?? ''))).toBe(tmpdir())
  expect(defaults()).toEqual([a, b])
})
