import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Interface } from 'node:readline'
import { within } from './time.ts'

/** A load generator or a peer in a process of its own. It also ends by itself once its standard input has ended. */
export type Load<T> = {
  readonly pid: number
  /** Everything is connected; with executors: and pulling. */
  readonly ready: Promise<void>
  /** What the process printed last, once it has ended. */
  readonly result: Promise<T>
  /** Sends a line; resolves to the next line it prints. */
  ask(line: string): Promise<string>
  /** Asks it to end; resolves to its result. */
  stop(): Promise<T>
}

export type Gateway = { readonly url: string; readonly pid: number; stop(): Promise<void> }

export type Children = {
  gateway(environment: Record<string, string>): Promise<Gateway>
  load<T>(script: string, input: object): Load<T>
  peer<T>(script: string, input: object): Load<T>
  /** Ends whatever is still there: what a measurement that broke has left behind. */
  stopAll(): Promise<void>
}

const repo = new URL('../../', import.meta.url)
const killAfterMs = 20_000
const withLoader = ['--import', 'tsx']

function linesOf(child: ChildProcess): Interface {
  if (child.stdout === null) throw new Error('a child without output')
  return createInterface({ input: child.stdout })
}

async function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill(signal)
  if (await within(killAfterMs, exit)) return
  child.kill('SIGKILL')
  await exit
}

async function awaitStart(child: ChildProcess): Promise<string> {
  for await (const line of linesOf(child)) {
    const entry = JSON.parse(line) as { event: string; url: string }
    if (entry.event === 'started') return entry.url
  }
  throw new Error('the gateway ended before it served')
}

function talk<T>(child: ChildProcess, script: string): Load<T> {
  let last = ''
  const lines = linesOf(child)
  const ended = Promise.all([once(child, 'exit'), once(lines, 'close')])
  const result = ended.then(() => {
    if (child.exitCode !== 0 || last === '') throw new Error(`${script} ended without a result`)
    return JSON.parse(last) as T
  })
  const ready = new Promise<void>((resolve, reject) => {
    lines.on('line', (line) => {
      if (line === '"ready"') resolve()
      else last = line
    })
    result.catch(reject)
  })
  // Whoever waits for only one of the two hears of it there.
  ready.catch(() => undefined)
  return {
    pid: child.pid ?? 0,
    ready,
    result,
    async ask(line) {
      const answer = once(lines, 'line')
      child.stdin?.write(`${line}\n`)
      const [text] = (await Promise.race([answer, result.then(() => [''])])) as string[]
      return text ?? ''
    },
    stop() {
      child.stdin?.end()
      return result
    },
  }
}

export function createChildren(databaseUrl: string): Children {
  const children = new Set<ChildProcess>()

  function start(args: readonly string[], environment: Record<string, string> = {}): ChildProcess {
    const child = spawn(process.execPath, args, {
      cwd: repo,
      env: { ...process.env, ...environment },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    children.add(child)
    child.once('exit', () => children.delete(child))
    // It may have ended when it is told to.
    child.stdin.on('error', () => undefined)
    return child
  }
  const inputOf = (input: object) => JSON.stringify({ databaseUrl, ...input })

  return {
    async gateway(environment) {
      const child = start(['dist/cli/pullgate.js', 'serve'], {
        DATABASE_URL: databaseUrl,
        PULLGATE_PORT: '0',
        PULLGATE_LOG_LEVEL: 'info',
        ...environment,
      })
      const url = await awaitStart(child)
      child.stdout?.resume()
      return { url, pid: child.pid ?? 0, stop: () => end(child, 'SIGTERM') }
    },
    load<T>(script: string, input: object) {
      return talk<T>(start([...withLoader, `bench/load/${script}`, inputOf(input)]), script)
    },
    peer<T>(script: string, input: object) {
      return talk<T>(start([`bench/peers/${script}`, inputOf(input)]), script)
    },
    async stopAll() {
      await Promise.all([...children].map((child) => end(child, 'SIGTERM')))
    },
  }
}
