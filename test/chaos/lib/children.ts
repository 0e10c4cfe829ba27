import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { endsWithUs } from '../../support/children.ts'
import type { Done, Order } from '../orders.ts'

/** A child process that takes orders. One that ends is started anew by `restart`. */
export type Child = {
  readonly pid: number
  /** Resolves when the order was carried out, or the process has ended. */
  order(what: Order): Promise<void>
  signal(name: NodeJS.Signals): void
  /** After its end: a new process. */
  restart(): Promise<void>
  stop(): Promise<void>
}

const folder = join(import.meta.dirname, '..')

export async function startChild(script: string, args: (life: number) => readonly string[]): Promise<Child> {
  let lives = 0
  let orders = 0
  let child: ChildProcess
  let open = new Map<number, () => void>()

  async function start(): Promise<void> {
    const waiting = new Map<number, () => void>()
    const own = fork(join(folder, script), args((lives += 1)), {
      execArgv: ['--import', 'tsx'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    child = endsWithUs(own)
    open = waiting
    own.on('error', () => undefined)
    own.once('exit', () => {
      for (const resolve of waiting.values()) resolve()
      waiting.clear()
    })
    await once(own, 'message')
    own.on('message', ({ order }: Done) => {
      waiting.get(order)?.()
      waiting.delete(order)
    })
  }
  await start()
  const running = () => child.exitCode === null && child.signalCode === null

  return {
    get pid() {
      return child.pid ?? 0
    },
    order(what) {
      if (!running()) return Promise.resolve()
      return new Promise((resolve) => {
        orders += 1
        open.set(orders, resolve)
        child.send({ order: orders, what }, (error) => {
          if (error !== null) resolve()
        })
      })
    },
    signal: (name) => void child.kill(name),
    async restart() {
      if (running()) await once(child, 'exit')
      await start()
    },
    async stop() {
      if (!running()) return
      const exit = once(child, 'exit')
      child.kill('SIGCONT')
      child.kill('SIGKILL')
      await exit
    },
  }
}
