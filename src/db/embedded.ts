import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import * as host from './embedded-binaries.ts'
import { claim, inUse, readIfThere } from './embedded-claim.ts'
import { openGuard } from './embedded-guard.ts'
import type { Guard } from './embedded-guard.ts'

export { defaultDataDir } from './embedded-binaries.ts'

export type EmbeddedOptions = {
  /** Holds the cluster. Its parents are created; the account that runs Postgres must be able to enter them. */
  dataDir: string
  /** TCP port on 127.0.0.1; a free one by default. */
  port?: number
  /** When false, the server and its data directory end with this process, even if it is killed; `stop` removes both. */
  keep: boolean
  /** Server settings, as for `postgres -c name=value`. They cannot change where the server listens. */
  settings?: Readonly<Record<string, string>>
  /** Ends the server with this process. By default there is one only without `keep`. */
  guard?: Guard
  /** Of the platform's binary package; by default the one that is installed. */
  packageDir?: string
}

export type EmbeddedPostgres = {
  /** Says sslmode=disable, whatever PGSSLMODE says. The password stays with the data directory. */
  url: string
  pid: number
  dataDir: string
  /** Disconnects every client and shuts the server down in order. May be called more than once. */
  stop(): Promise<void>
  /** Resolves when the server process has ended, for whatever reason. */
  exited: Promise<void>
}

export const passwordFile = 'pullgate-password'
const ownerSetting = 'pullgate.embedded_owner'
const startTimeoutMs = 60_000
const pollMs = 50
// The children of a killed postmaster notice its death and leave within this time.
const childrenGoneMs = 10_000

/** Fast shutdown first, then less kind ones. `gone` resolves to false when its time in ms has passed. */
async function shutDown(pid: number, gone: (ms: number) => Promise<boolean>): Promise<void> {
  if (await gone(0)) return
  for (const [signal, ms] of [
    ['SIGINT', 30_000],
    ['SIGQUIT', 10_000],
    ['SIGKILL', 10_000],
  ] as const) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if (host.errnoOf(error) !== 'ESRCH') throw error
    }
    if (await gone(ms)) return
  }
  throw new Error(`the Postgres server with pid ${pid} does not end`)
}

/** Deals with the server that postmaster.pid names: none, an unrelated process, our orphan, or one in use. */
async function clearPreviousServer(dataDir: string): Promise<void> {
  const file = join(dataDir, 'postmaster.pid')
  const text = readIfThere(file)
  if (text === undefined) return
  const pid = Number.parseInt(text, 10)
  const found = host.inspect(pid)
  if (found?.command === 'postgres' && mayServe(pid, found, dataDir)) {
    const owner = new RegExp(`${ownerSetting}=(\\S+)`).exec(found.args)?.[1]
    if (owner === undefined || host.isAlive(owner)) throw inUse(dataDir, pid)
    await shutDown(pid, async (ms) => {
      for (let left = ms; left > 0 && host.isAlive(found.identity); left -= pollMs) await delay(pollMs)
      return !host.isAlive(found.identity)
    })
    return
  }
  try {
    process.kill(pid, 0)
  } catch {
    return
  }
  // Postgres takes any process of its account for its server. A pid that cannot exist makes it look
  // closer; the rest of the file stays, as it names the shared memory by which Postgres finds live children.
  fs.writeFileSync(file, text.replace(/^\s*-?\d+/, '2147483647'))
}

function mayServe(pid: number, found: host.ProcessInfo, dataDir: string): boolean {
  if (process.platform !== 'linux') return found.args.includes(dataDir)
  try {
    // Every Postgres process works in its data directory. Inodes tell, where paths may differ by a mount.
    const [cwd, dir] = [fs.statSync(`/proc/${pid}/cwd`), fs.statSync(dataDir)]
    return cwd.dev === dir.dev && cwd.ino === dir.ino
  } catch {
    return true
  }
}

/** Creates the cluster unless a complete one is there. Returns the password. */
async function ensureCluster(dataDir: string, binaries: host.Binaries, keep: boolean): Promise<string> {
  const { account, major } = binaries
  const uid = fs.statSync(dataDir, { throwIfNoEntry: false })?.uid ?? account.uid
  // Root may have made an empty one for us, which is replaced.
  if (uid !== account.uid && (!account.drop || fs.readdirSync(dataDir).length > 0)) {
    const mismatch = `${dataDir} belongs to uid ${uid}, but Postgres runs as ${account.name} (${account.uid})`
    throw new Error(`${mismatch}; choose another data directory or ${host.remedy}`)
  }
  const names = fs.existsSync(dataDir) ? fs.readdirSync(dataDir) : []
  const version = readIfThere(join(dataDir, 'PG_VERSION'))?.trim()
  if (version !== undefined && version !== major) {
    const mismatch = `${dataDir} holds data of Postgres ${version}, but this is Postgres ${major}`
    throw new Error(`${mismatch}: dump it with Postgres ${version} and remove it, or ${host.remedy}`)
  }
  if (version !== undefined && names.includes(passwordFile)) {
    return fs.readFileSync(join(dataDir, passwordFile), 'utf8')
  }
  const halfMade =
    !fs.existsSync(join(dataDir, 'global/pg_control')) &&
    names.every((name) => /^(PG_VERSION|base|global|pg_\w+(\.conf)?|postgresql(\.auto)?\.conf)$/.test(name))
  if (!halfMade) {
    throw new Error(`${dataDir} has contents that pullgate did not create; move them away, or ${host.remedy}`)
  }
  return initialise(dataDir, binaries, keep)
}

async function initialise(dataDir: string, binaries: host.Binaries, keep: boolean): Promise<string> {
  const { account, initdb } = binaries
  const prefix = `${dataDir}.init-`
  const parent = dirname(dataDir)
  // The claim on the data directory is ours, so nobody works in these any more.
  for (const name of fs.readdirSync(parent).filter((entry) => entry.startsWith(basename(prefix)))) {
    fs.rmSync(join(parent, name), { recursive: true, force: true, maxRetries: 5 })
  }
  const staging = fs.mkdtempSync(prefix)
  try {
    const cluster = join(staging, 'data')
    const secret = join(staging, 'password')
    const password = randomBytes(24).toString('hex')
    fs.writeFileSync(secret, password, { flag: 'wx', mode: 0o600 })
    if (account.drop) for (const path of [secret, staging]) fs.lchownSync(path, account.uid, account.gid)
    const access = ['-U', 'postgres', '--auth=scram-sha-256', `--pwfile=${secret}`]
    const format = ['--encoding=UTF8', '--locale=C', '--no-instructions', ...(keep ? [] : ['--no-sync'])]
    const { ok, stderr } = await host.run(initdb, ['-D', cluster, ...access, ...format], account)
    if (!ok) throw new Error(`initdb failed: ${stderr.trim()}; ${host.remedy}`)
    fs.renameSync(secret, join(cluster, passwordFile))
    fs.rmSync(dataDir, { recursive: true, force: true })
    fs.renameSync(cluster, dataDir)
    return password
  } finally {
    fs.rmSync(staging, { recursive: true, force: true, maxRetries: 5 })
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

type Running = { pid: number; exited: Promise<void>; stop: () => Promise<void> }

/** Starts the server and waits until it accepts connections. A failure returns the last lines it printed. */
async function launch(binaries: host.Binaries, args: string[], guard?: Guard): Promise<Running | string> {
  // Its own process group keeps a terminal's Ctrl-C from it: it is stopped after those who use it.
  const child = spawn(binaries.postgres, args, {
    ...host.childOptions(binaries.account),
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exited = new Promise<void>((done) => child.once('exit', () => done()).once('error', () => done()))
  const { pid } = child
  if (pid !== undefined) guard?.watch(pid, 'QUIT', exited)
  const gone = (ms: number) => Promise.race([exited.then(() => true), delay(ms, false, { ref: false })])
  const stop = async () => {
    if (pid !== undefined) await shutDown(pid, gone)
  }
  const tail: string[] = []
  let timer
  const outcome = await new Promise<'ready' | 'ended' | 'late'>((settle) => {
    timer = setTimeout(() => settle('late'), startTimeoutMs)
    child.once('error', (error) => tail.push(error.message)).once('error', () => settle('ended'))
    child.once('close', () => settle('ended'))
    // Read for as long as the server lives: a full pipe would block it.
    createInterface({ input: child.stderr }).on('line', (line) => {
      tail.splice(0, tail.length - 19)
      tail.push(line)
      if (/database system is ready to accept (read-only )?connections/.test(line)) settle('ready')
    })
  })
  clearTimeout(timer)
  if (outcome === 'ready' && pid !== undefined) return { pid, exited, stop }
  await stop()
  return [outcome === 'late' ? `not ready after ${startTimeoutMs} ms` : 'it ended', ...tail].join('\n')
}

/**
 * Starts a Postgres server of our own on 127.0.0.1, over a data directory that is created as needed, and waits
 * until it accepts connections. A server left behind on that directory by a process that died is stopped first.
 * Rejects, with the remedy in the message, when Postgres cannot run here, when the directory is in use, belongs
 * to another account or holds data of another major version, and with the server's last lines if it ends or is
 * not ready within 60 s.
 */
export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const binaries = await host.prepareBinaries(options.packageDir)
  const dataDir = host.placeDataDir(options.dataDir, binaries.account)
  const owner = host.inspect(process.pid)?.identity
  if (owner === undefined) throw new Error(`the system shows no processes; ${host.remedy}`)
  const release = claim(dataDir, owner)
  const removeData = () => fs.promises.rm(dataDir, { recursive: true, force: true, maxRetries: 5 })
  const own = options.keep || options.guard !== undefined ? undefined : openGuard([dataDir])
  const guard = options.guard ?? own
  const isNew = !fs.existsSync(join(dataDir, 'PG_VERSION'))
  try {
    const password = await ensureCluster(dataDir, binaries, options.keep)
    await clearPreviousServer(dataDir)
    const retryUntil = performance.now() + childrenGoneMs
    for (let attempt = 1; ; attempt += 1) {
      const port = options.port ?? (await freePort())
      const address = { listen_addresses: '127.0.0.1', port: String(port), unix_socket_directories: '' }
      const log = { logging_collector: 'off', log_destination: 'stderr' }
      const settings = Object.entries({ ...options.settings, ...address, ...log, [ownerSetting]: owner })
      const args = ['-D', dataDir, ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`])]
      const server = await launch(binaries, args, guard)
      if (typeof server !== 'string') {
        // Without `keep` the claim lasts until the directory is removed.
        if (options.keep) void server.exited.then(release)
        let stopping: Promise<void> | undefined
        const stop = async () => {
          await server.stop()
          if (!options.keep) await removeData()
          own?.release()
          release()
        }
        const url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres?sslmode=disable`
        const { pid, exited } = server
        return { url, pid, dataDir, exited, stop: () => (stopping ??= stop()) }
      }
      const childrenLeft = server.includes('shared memory block') && performance.now() < retryUntil
      // Another program can take the port between its choice and the server's use of it.
      const portLost = options.port === undefined && attempt < 5 && server.includes('could not bind')
      if (!childrenLeft && !portLost) {
        throw new Error(`Postgres did not start on ${dataDir}: ${server}\nEnd that cause or ${host.remedy}`)
      }
      await delay(4 * pollMs)
    }
  } catch (error) {
    if (isNew && !options.keep) await removeData()
    own?.release()
    release()
    throw error
  }
}
