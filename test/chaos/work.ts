import { setTimeout as delay } from 'node:timers/promises'
import type { History, Received, Verb } from './history.ts'
import { openWire } from './lib/wire.ts'
import type { Reply } from './lib/wire.ts'
import type { ExecuteOrder } from './orders.ts'
import type { Work } from './plan.ts'
import type { Completion } from './pulls.ts'

/** What executors do with the jobs they got: over connections of their own, which no fault is aimed at, again until answered. */
export type Worker = ReturnType<typeof createWorker>

const triesMax = 25
const pauseMs = 200

type Answer = { readonly status: number; readonly cancelled: boolean }

export function createWorker(history: History, prefix: string) {
  let calls = 0
  const working = new Set<Promise<void>>()
  /** Jobs whose completion waits for the executor's next pull. */
  const completions = new Map<string, Completion[]>()

  async function request(port: number, path: string, json: unknown): Promise<Reply | undefined> {
    const wire = openWire({
      ...{ port, preamble: { conn: `${prefix}/settles`, link: null }, reading: 'normal' },
      onClosed: () => undefined,
      onUnasked: () => undefined,
    })
    const reply = await wire.request('POST', path, json, { Connection: 'close' })
    wire.end('fin')
    return 'broken' in reply ? undefined : reply
  }

  /** Asks one gateway after the other until one says something final. */
  async function settle(
    { ports, plan }: ExecuteOrder,
    { id, lease }: Pick<Received, 'id' | 'lease'>,
    verb: Verb,
    fields: object = {},
  ): Promise<Answer | undefined> {
    for (let tries = 0; tries < triesMax; tries += 1) {
      const gateway = (plan.gateway + tries) % ports.length
      const call = `${prefix}@${(calls += 1)}`
      history.write({ kind: 'settle', call, gateway: `g${gateway}`, id, lease, verb })
      const reply = await request(ports[gateway] ?? 0, `/jobs/${id}/${verb}`, {
        ...(lease === null ? {} : { lease }),
        ...fields,
      })
      if (reply !== undefined) {
        const { status, text } = reply
        const body = JSON.parse(text) as { code?: string; cancel?: object | null }
        history.write({ kind: 'settled', call, status, code: body.code ?? null })
        if (status === 200 || status === 409) return { status, cancelled: (body.cancel ?? null) !== null }
        if (status !== 503) {
          history.write({ kind: 'mistake', gateway: `g${gateway}`, what: `${verb}: ${status} ${text}` })
          return undefined
        }
      }
      await delay(pauseMs)
    }
    return undefined
  }

  async function work(order: ExecuteOrder, job: Received, what: Work): Promise<void> {
    const { leaseSeconds, offerSeconds, name, piggyback, max } = order.plan
    const say = (verb: Verb, fields?: object) => settle(order, job, verb, fields)
    if (job.lease === null) {
      // The outcome of a job that was acknowledged automatically may be told, or not.
      if (what === 'hold' || what === 'complete twice') await say('complete', { result: job.attempt })
      return
    }
    if (offerSeconds !== null) {
      if (what === 'vanish' && job.attempt % 2 === 1) return
      if ((await say('heartbeat'))?.status !== 200) return
    }
    switch (what) {
      case 'complete':
        if (piggyback && max !== null) completionsOf(name).push({ id: job.id, lease: job.lease })
        else await say('complete')
        return
      case 'complete twice':
        await say('complete', { result: { n: job.attempt } })
        await say('complete', { result: { n: job.attempt } })
        return
      case 'fail':
        await say('fail', { error: 'it did not work', retryAfterSeconds: job.attempt % 2 === 0 ? 0 : 0.4 })
        return
      case 'fail for good':
        await say('fail', { error: 'it will never work', retry: false })
        return
      case 'release':
        await say('release', job.attempt % 2 === 0 ? {} : { delaySeconds: 0.3 })
        return
      case 'release, then complete':
        await say('release')
        await delay(60 * job.attempt)
        await say('complete')
        return
      case 'hold': {
        await say('heartbeat')
        await delay(300)
        const answer = await say('heartbeat', { progress: 0.5 })
        await say(
          answer?.cancelled === true ? 'fail' : 'complete',
          answer?.cancelled ? { error: 'cancelled' } : {},
        )
        return
      }
      case 'late':
        await delay(leaseSeconds * 1000 + 400 * job.attempt)
        await say('complete')
        return
      case 'vanish':
    }
  }

  function completionsOf(name: string): Completion[] {
    const list = completions.get(name) ?? []
    completions.set(name, list)
    return list
  }

  function track(task: Promise<void>): void {
    working.add(task)
    void task.finally(() => working.delete(task))
  }

  return {
    /** Starts to work on the jobs. */
    take(order: ExecuteOrder, jobs: readonly Received[]): void {
      const { work: list } = order.plan
      for (const [index, job] of jobs.entries()) {
        track(work(order, job, list[(index + job.attempt) % list.length] ?? 'complete'))
      }
      // Whoever does not pull again settles by itself.
      if (order.plan.piggyback) track(delay(1_500).then(() => settleRest(order)))
    },
    takeCompletions(name: string): Completion[] {
      const list = completions.get(name) ?? []
      // Kept until the rest is settled: the pull that carries them may break.
      return list
    },
    async subscribe({ ports, plan, topic }: ExecuteOrder): Promise<string | undefined> {
      const json = {
        ...{ topic, ack: plan.ack },
        ...(plan.ack === 'explicit' ? { leaseSeconds: plan.leaseSeconds } : {}),
        ...(plan.offerSeconds === null ? {} : { offerSeconds: plan.offerSeconds }),
      }
      for (let tries = 0; tries < triesMax; tries += 1) {
        const reply = await request(ports[(plan.gateway + tries) % ports.length] ?? 0, '/subscriptions', json)
        if (reply?.status === 200) return (JSON.parse(reply.text) as { id: string }).id
        await delay(pauseMs)
      }
      return undefined
    },
    async idle(): Promise<void> {
      while (working.size > 0) await Promise.all(working)
    },
  }

  /** Says again what pulls were to carry: the same verb and lease, whether or not they arrived. */
  async function settleRest(order: ExecuteOrder): Promise<void> {
    const list = completions.get(order.plan.name) ?? []
    completions.delete(order.plan.name)
    for (const one of list) await settle(order, one, 'complete')
  }
}
