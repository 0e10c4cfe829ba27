import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { endsWithUs } from '../../support/children.ts'
import type { History } from '../history.ts'
import { databaseLink, executorLinks, faultsOf } from './links.ts'
import type { DatabaseFaults, ExecutorLinks } from './links.ts'

/** One gateway of the fleet, behind proxies on either side, in one process after the other. */
export type ChaosGateway = {
  readonly name: string
  /** Where executors connect, whatever becomes of the process. */
  readonly port: number
  /** Of the process that serves now: itself, without a proxy. */
  readonly url: string
  readonly pid: number
  /** What its connections to Postgres call themselves. */
  readonly application: string
  readonly database: DatabaseFaults
  readonly executors: ExecutorLinks
  kill(): Promise<void>
  /** SIGTERM; resolves when it has ended. */
  drain(): Promise<void>
  signal(name: NodeJS.Signals): void
  /** After its end. Tries again while Postgres is away. */
  restart(): Promise<void>
  close(): Promise<void>
}

export type GatewayOptions = {
  readonly name: string
  /** Of the build. */
  readonly root: string
  readonly databaseUrl: string
  readonly history: History
  /** What it logs, each line with the name of its life. */
  readonly logFile: string
  readonly settings: Readonly<Record<string, string>>
}

export const poolMax = 5
const settled = /"event":"(stop step failed|delivery report failed|request failed)"/
const startTriesMax = 60

export async function startChaosGateway(options: GatewayOptions): Promise<ChaosGateway> {
  const { name, root, databaseUrl, history, logFile, settings } = options
  const postgres = Number(new URL(databaseUrl).port)
  const [pool, listener] = await Promise.all([databaseLink(postgres), databaseLink(postgres)])
  let lives = 0
  let child: ChildProcess | undefined
  let port: number | undefined
  let base = ''
  let asked: 'kill' | 'stop' | 'no' = 'no'
  let application = ''
  const links = await executorLinks(() => port, history)

  async function launch(): Promise<boolean> {
    const own = `chaos/${name}/${(lives += 1)}`
    application = own
    asked = 'no'
    const urlOf = (port: number) => {
      const url = new URL(databaseUrl)
      url.port = String(port)
      url.searchParams.set('application_name', own)
      return url.href
    }
    const { PATH, HOME, TMPDIR } = process.env
    const process_ = spawn(process.execPath, ['dist/cli/pullgate.js', 'serve'], {
      cwd: root,
      env: {
        ...{ PATH, HOME, TMPDIR, PULLGATE_PORT: '0', PULLGATE_LOG_LEVEL: 'info' },
        ...{ DATABASE_URL: urlOf(pool.port), PULLGATE_LISTEN_DATABASE_URL: urlOf(listener.port) },
        ...{ PULLGATE_POOL_MAX: String(poolMax), PULLGATE_STATEMENT_TIMEOUT_MS: '2000' },
        ...{ PULLGATE_STOP_TIMEOUT_SECONDS: '8', ...settings },
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child = endsWithUs(process_)
    let served = false
    const startup: string[] = []
    createInterface({ input: process_.stderr }).on('line', (line) => {
      // Before it serves, Postgres may be away, and it says so.
      if (served) history.write({ kind: 'log', gateway: name, line })
      else startup.push(line)
    })
    const started = new Promise<boolean>((resolve) => {
      createInterface({ input: process_.stdout }).on('line', (line) => {
        appendFileSync(logFile, `${own} ${line}\n`)
        const { event, time } = parse(line)
        if (event === 'started') {
          base = String(parse(line).url)
          port = Number(new URL(base).port)
          served = true
          resolve(true)
        } else if (event === 'stopping') {
          history.write({ kind: 'draining', gateway: name, name: own, at: Date.parse(String(time)) })
        } else if (settled.test(line)) history.write({ kind: 'log', gateway: name, line })
      })
      process_.once('exit', () => resolve(false))
    })
    process_.once('exit', (code, signal) => {
      port = undefined
      if (served) {
        history.write({ kind: 'ended', gateway: name, name: own, asked, exit: code ?? signal ?? 'unknown' })
      }
    })
    return started
  }

  async function restart(): Promise<void> {
    for (let tries = 0; !(await launch()); tries += 1) {
      if (tries >= startTriesMax) throw new Error(`gateway ${name} does not start`)
      await delay(200)
    }
  }

  async function end(how: 'kill' | 'stop', signal: NodeJS.Signals): Promise<void> {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    asked = how
    child.kill(signal)
    await exit
  }

  await restart()
  return {
    name,
    port: links.port,
    get url() {
      return base
    },
    get pid() {
      return child?.pid ?? 0
    },
    get application() {
      return application
    },
    database: faultsOf(pool, listener),
    executors: links,
    kill: () => end('kill', 'SIGKILL'),
    drain: () => end('stop', 'SIGTERM'),
    signal: (signal) => void child?.kill(signal),
    restart,
    async close() {
      child?.kill('SIGCONT')
      await end('kill', 'SIGKILL')
      links.close()
      pool.close()
      listener.close()
    },
  }
}

function parse(line: string): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(line) as Record<string, unknown>
  } catch {
    return {}
  }
}
