import { setTimeout as delay } from 'node:timers/promises'
import { expect } from 'vitest'
import { jobOf } from './http.ts'
import type { Answer, Api, Job } from './http.ts'

/** Executors that pull, complete, and go elsewhere when their gateway leaves, as a client should. */
export type Fleet = {
  /** How often each job was handed out. */
  readonly handed: ReadonlyMap<string, number>
  /** Every answer that was none of 200 and 204: status and code. */
  readonly refused: ReadonlySet<string>
  /** Resolves once so many different jobs were completed; rejects if an executor fails. */
  completed(count: number): Promise<void>
  stop(): Promise<void>
}

export function startFleet(gateways: () => readonly Api[], subscription: string, size: number): Fleet {
  const handed = new Map<string, number>()
  const completed = new Set<string>()
  const refused = new Set<string>()
  const stop = new AbortController()
  let changed: () => void = () => undefined

  /** One request, on another gateway whenever one is not there, and later when it says so. */
  async function send(ask: (gateway: Api) => Promise<Answer>, start: number): Promise<Answer> {
    for (let at = start; ; at += 1) {
      const all = gateways()
      const gateway = all[at % all.length]
      if (gateway === undefined) throw new Error('there is always a gateway')
      try {
        const answer = await ask(gateway)
        if (answer.status < 500) return answer
        refused.add(`${answer.status} ${String(answer.body.code)}`)
      } catch (error) {
        // The port is closed.
        if (!(error instanceof TypeError)) throw error
      }
      await delay(5)
    }
  }

  async function execute(_: unknown, index: number): Promise<void> {
    let held: Job | undefined
    while (!stop.signal.aborted || held !== undefined) {
      try {
        const job: Job | undefined = held
        if (job !== undefined) {
          const { status } = await send((gateway) => gateway.settle(job, 'complete'), index)
          expect(status).toBe(200)
          completed.add(job.id)
          held = undefined
          changed()
          continue
        }
        const { signal } = stop
        const answer = await send((gateway) => gateway.pull(subscription, { wait: 20, signal }), index)
        if (answer.status === 204) continue
        held = jobOf(answer)
        handed.set(held.id, (handed.get(held.id) ?? 0) + 1)
      } catch (error) {
        if (!stop.signal.aborted) throw error
      }
    }
  }

  const executors = Promise.all(Array.from({ length: size }, execute))
  executors.catch(() => undefined)
  return {
    handed,
    refused,
    async completed(count) {
      const enough = new Promise<void>((resolve) => {
        changed = () => {
          if (completed.size >= count) resolve()
        }
        changed()
      })
      await Promise.race([enough, executors])
    },
    async stop() {
      stop.abort()
      await executors
    },
  }
}
