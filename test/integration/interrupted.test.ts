import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { inspect, isAlive } from '../../src/db/embedded-binaries.ts'
import { endsWithUs } from '../support/children.ts'
import { useDatabase } from '../support/database.ts'
import { killGroup, startOwner } from '../support/embedded-owner.ts'
import { until } from '../support/http.ts'
import { openScratch } from '../support/postgres.ts'

// Whoever starts a server that nobody keeps may be killed: the server ends all the same, and its files go.

const root = join(import.meta.dirname, '../..')
const database = useDatabase()

function scratchDir(): string {
  const scratch = openScratch('interrupted')
  onTestFinished(scratch.remove)
  return scratch.path
}

const ours = (folder: string) => readdirSync(folder).filter((name) => name.startsWith('pullgate-'))

test.each([
  ['npm', 'SIGTERM'],
  ['npm', 'SIGINT'],
  ['vitest', 'SIGKILL'],
] as const)('npm test leaves no process and no directory when %s gets %s', async (target, signal) => {
  const scratch = scratchDir()
  const file = join(scratch, 'pids.json')
  const { PATH, HOME, PULLGATE_TEST_POSTGRES } = process.env
  const npm = endsWithUs(
    spawn('npm', ['test', '--', '--config', 'test/support/hanging/vitest.config.ts'], {
      cwd: root,
      env: { PATH, HOME, PULLGATE_TEST_POSTGRES, TMPDIR: scratch, PULLGATE_TEST_HANGS: file },
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  )
  let output = ''
  for (const stream of [npm.stdout, npm.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  const exit = once(npm, 'exit')
  await until(() => {
    expect(npm.exitCode, output).toBeNull()
    expect(existsSync(file), output).toBe(true)
  })
  const pids = JSON.parse(readFileSync(file, 'utf8')) as Record<string, number>
  const identities = Object.entries(pids).map(([name, pid]) => [name, inspect(pid)?.identity ?? ''] as const)
  const alive = () => identities.filter(([, identity]) => isAlive(identity)).map(([name]) => name)
  expect(alive()).toEqual(['vitest', 'worker', 'gateway', 'own', 'postmaster'])
  expect(ours(scratch)).toHaveLength(2)

  process.kill(target === 'npm' ? (npm.pid ?? 0) : (pids.vitest ?? 0), signal)
  await exit
  await until(() => expect([alive(), ours(scratch)]).toEqual([[], []]))
})

test('npm start passes SIGTERM on: the gateway stops in order', async () => {
  const { PATH, HOME, TMPDIR } = process.env
  const npm = endsWithUs(
    spawn('npm', ['start'], {
      cwd: root,
      env: { PATH, HOME, TMPDIR, DATABASE_URL: database.url, PULLGATE_PORT: '0' },
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  )
  let output = ''
  npm.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  // Closed once the last process that writes to it has ended.
  const closed = once(npm.stdout, 'close')
  await until(() => expect(output).toContain('"event":"started"'))
  npm.kill('SIGTERM')
  await closed
  expect(output).toContain('"event":"stopped"')
})

test('without keep, server and data directory end with an owner that is killed', async () => {
  const scratch = scratchDir()
  const owner = startOwner(join(scratch, 'data'), false)
  const [pid] = (await once(owner, 'message')) as [number]
  const { identity = '' } = inspect(pid) ?? {}
  expect(isAlive(identity)).toBe(true)
  await killGroup(owner)
  await until(() => expect([isAlive(identity), readdirSync(scratch)]).toEqual([false, []]))
})

test('without keep, an owner that is killed during initdb leaves nothing', async () => {
  const scratch = scratchDir()
  const owner = startOwner(join(scratch, 'data'), false)
  const staged = () => readdirSync(scratch).some((name) => existsSync(join(scratch, name, 'data/base')))
  await until(() => expect(staged()).toBe(true))
  await killGroup(owner)
  await until(() => expect(readdirSync(scratch)).toEqual([]))
})
