import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, onTestFinished } from 'vitest'
import { endsWithUs } from './children.ts'
import { apiOf } from './http.ts'
import type { Api } from './http.ts'
import type { Settings } from './gateway.ts'

/** The command as its users run it: a process of its own, its exit code and what it prints. */
export type Cli = {
  readonly child: ChildProcess
  /** stdout and stderr so far. */
  readonly output: string
  /** Resolves with the first match in the output; rejects when the process ends without one. */
  printed(pattern: RegExp): Promise<RegExpExecArray>
  /** The exit code, or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>
  signal(name: NodeJS.Signals): void
}

export type GatewayProcess = Api & Cli

const root = join(import.meta.dirname, '../..')

type Undo = () => Promise<void>

/** Starts `pullgate …args`. It sees no setting but those given. Killed after the test if it is still there. */
export function startCli(
  args: readonly string[],
  settings: Settings = {},
  whenDone: (undo: Undo) => void = onTestFinished,
): Cli {
  const { PATH, HOME, TMPDIR } = process.env
  const own = Object.entries({ PATH, HOME, TMPDIR, ...settings }).filter(([, value]) => value !== undefined)
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/cli/pullgate.ts', ...args], {
    cwd: root,
    env: Object.fromEntries(own.map(([key, value]) => [key, String(value)])),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  endsWithUs(child)
  let output = ''
  let ended = false
  const watchers = new Set<() => void>()
  const wake = () => watchers.forEach((watcher) => watcher())
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      wake()
    })
  }
  // `close`, unlike `exit`, comes after the last output.
  const exited = once(child, 'close').then(([code, signal]: unknown[]) => {
    ended = true
    wake()
    return (code ?? signal) as number | NodeJS.Signals
  })
  whenDone(async () => {
    if (!ended) child.kill('SIGKILL')
    await exited
  })
  return {
    child,
    get output() {
      return output
    },
    printed: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(output)
          if (match === null && !ended) return
          watchers.delete(look)
          if (match !== null) resolve(match)
          else reject(new Error(`ended without printing ${String(pattern)}:\n${output}`))
        }
        watchers.add(look)
        look()
      }),
    exited,
    signal: (name) => void child.kill(name),
  }
}

/** Runs `pullgate …args` to its end. */
export async function runCli(
  args: readonly string[],
  settings: Settings = {},
): Promise<{ readonly exit: number | NodeJS.Signals; readonly output: string }> {
  const cli = startCli(args, settings)
  const exit = await cli.exited
  return { exit, output: cli.output }
}

/** Starts `pullgate serve` on the database, on free ports, and waits until it has started. */
export async function startGatewayProcess(
  database: { readonly url: string },
  settings: Settings = {},
  whenDone?: (undo: Undo) => void,
): Promise<GatewayProcess> {
  const all = { DATABASE_URL: database.url, PULLGATE_PORT: 0, ...settings }
  return started(startCli(['serve'], all, whenDone))
}

/** The same for all tests of the file. Call after useDatabase. */
export function useGatewayProcess(
  database: { readonly url: string },
  settings: Settings = {},
): () => GatewayProcess {
  let gateway: GatewayProcess | undefined
  let undo: Undo | undefined
  beforeAll(async () => {
    gateway = await startGatewayProcess(database, settings, (given) => (undo = given))
  })
  afterAll(() => undo?.())
  return () => {
    if (gateway === undefined) throw new Error('the gateway is there from beforeAll on')
    return gateway
  }
}

/** What `pullgate serve` says of itself once it has started. */
export async function started(cli: Cli): Promise<GatewayProcess> {
  const [line] = await cli.printed(/^\{.*"event":"started".*\}$/m)
  const { url, adminUrl } = JSON.parse(line) as { url: string; adminUrl: string }
  // The output goes on growing: keep its getter.
  return Object.defineProperties(
    apiOf(url, adminUrl),
    Object.getOwnPropertyDescriptors(cli),
  ) as GatewayProcess
}
