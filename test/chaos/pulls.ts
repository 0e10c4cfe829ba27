import type { History, Received } from './history.ts'
import type { Wire } from './lib/wire.ts'
import type { ExecuteOrder } from './orders.ts'
import { isWhole } from './specs.ts'
import type { Spec } from './specs.ts'

/** One pull: what is sent, what comes back, and what of it goes into the history. */

export type Completion = { readonly id: string; readonly lease: string }

export type Pulled = {
  readonly jobs: readonly Received[]
  readonly pauseMs: number
  /** The whole answer came. */
  readonly answered: boolean
}

export type Asked = {
  readonly order: ExecuteOrder
  readonly subscription: string
  readonly conn: string
  readonly gateway: string
  readonly waitSeconds: number
  /** Completed by the pull itself. */
  readonly settles: readonly Completion[]
  readonly idempotencyKey: string | null
}

type JobText = {
  readonly jobSpec: Spec
  readonly id: string
  readonly lease?: string
  readonly attempt: number
}

const usual = new Set([200, 204, 409, 410, 429, 503])

export function createPulls(history: History, processName: string, prefix: string) {
  let pulls = 0
  let calls = 0

  async function pull(wire: Wire, asked: Asked): Promise<Pulled> {
    const { order, subscription, conn, gateway, waitSeconds, settles, idempotencyKey } = asked
    const { plan, round, topic } = order
    const id = `${prefix}#${(pulls += 1)}`
    const max = plan.max ?? 1
    const reads = plan.reading !== 'never'
    const key = idempotencyKey === null ? {} : { idempotencyKey }
    history.write({
      ...{ kind: 'pull', round, pull: id, conn, process: processName, gateway, subscription, topic },
      ...{ ack: plan.ack, max, reads, ...key },
    })
    const tries = settles.map((one) => ({ ...one, call: `${prefix}@p${(calls += 1)}` }))
    for (const { call, ...one } of tries)
      history.write({ kind: 'settle', call, gateway, ...one, verb: 'complete' })
    const query = `wait=${waitSeconds}${plan.max === null ? '' : `&max=${plan.max}`}`
    const reply = await wire.request(
      'PATCH',
      `/subscriptions/${subscription}?${query}`,
      settles.length === 0 ? undefined : { complete: settles },
      idempotencyKey === null ? {} : { 'Idempotency-Key': idempotencyKey },
    )
    const { firstByteAt } = reply
    if ('broken' in reply) {
      const keys = [...reply.text.matchAll(/"k":"([^"]+)"/g)].map(([, one = '']) => one)
      history.write({ kind: 'broken', pull: id, firstByteAt, keys })
      // With a key: until the checker can tell that the claim had been made, and that its gateway keeps it.
      return { jobs: [], pauseMs: idempotencyKey === null ? 30 : 300, answered: false }
    }
    const { status, text } = reply
    const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
    const jobs = status === 200 ? jobsOf(body).map(received) : []
    history.write({ kind: 'answer', pull: id, firstByteAt: reply.firstByteAt, status, jobs })
    const answers = (body.settled ?? []) as { status: number; code?: string }[]
    for (const [index, answer] of answers.entries()) {
      const call = tries[index]?.call ?? ''
      history.write({ kind: 'settled', call, status: answer.status, code: answer.code ?? null })
    }
    if (!usual.has(status)) history.write({ kind: 'mistake', gateway, what: `pull: ${status} ${text}` })
    return { jobs, pauseMs: status === 204 || jobs.length > 0 ? 0 : 150, answered: status < 500 }
  }

  return { pull }
}

function jobsOf(body: Record<string, unknown>): JobText[] {
  return 'jobs' in body ? (body.jobs as JobText[]) : [body as unknown as JobText]
}

function received({ jobSpec, id, lease, attempt }: JobText): Received {
  return { id, key: jobSpec.k, lease: lease ?? null, attempt, whole: isWhole(jobSpec) }
}
