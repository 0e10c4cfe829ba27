import { subscribe } from '../lib/control.ts'
import { createGate } from '../lib/gate.ts'
import { clockOffset } from '../lib/instants.ts'
import type { Instants } from '../lib/instants.ts'
import type { Rig } from '../lib/rig.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Wire } from '../lib/wire.ts'

export type Kind = 'delayed' | 'retry' | 'lease'

type Job = {
  readonly id: string
  readonly lease: string
  readonly attempt: number
  readonly jobSpec: { readonly kind: Kind; readonly n: number }
}

/** Samples of a kind that wait for their job to come into a hand. */
type Waiting = { dueAt: number; resolve(ms: number): void }

const topic = 'due'
const connections = 6
/** The shortest that a subscription may have. */
const leaseSeconds = 10

/**
 * Executors of one topic. A delayed job is completed; a retry is failed at its first attempt; a lease is left to end
 * at its first attempt, without a word.
 */
export async function openExecutors(rig: Rig, gateway: string, instants: Instants) {
  const publisher = await rig.connect()
  const reader = await rig.connect()
  const offset = await clockOffset(reader)
  const subscription = await subscribe(gateway, topic, leaseSeconds)
  const waiting = new Map<string, Waiting>()
  const publishing = createGate()
  const reading = createGate()
  let closed = false

  async function instantOf(column: 'due_at' | 'lease_ends_at', id: string): Promise<number> {
    const { rows } = await reading(() =>
      reader.query<{ at: string }>({
        name: column,
        text: `select extract(epoch from ${column}) * 1000 as at from pullgate.job where id = $1`,
        values: [id],
      }),
    )
    return Number(rows[0]?.at) - offset
  }

  async function handle(
    wire: Wire,
    { id, lease, attempt, jobSpec: { kind, n } }: Job,
    at: number,
  ): Promise<void> {
    const sample = waiting.get(`${kind}${n}`)
    if (sample === undefined) throw new Error(`an unknown job: ${kind} ${n}`)
    const post = async (verb: string, body: object) =>
      jsonOf(await wire.send('POST', `/jobs/${id}/${verb}`, JSON.stringify({ lease, ...body })))
    if (kind === 'retry' && attempt === 1) {
      const retryAfterSeconds = instants.reserve(200, 3_000) / 1000
      await post('fail', { error: 'again', retryAfterSeconds })
      sample.dueAt = await instantOf('due_at', id)
    } else if (kind === 'lease' && attempt === 1) {
      sample.dueAt = await instantOf('lease_ends_at', id)
    } else {
      await post('complete', {})
      sample.resolve(at - sample.dueAt)
    }
  }

  async function pull(wire: Wire): Promise<void> {
    while (!closed) {
      const answer = await wire.send('PATCH', `/subscriptions/${subscription}`)
      if (answer.status !== 204) await handle(wire, jsonOf(answer) as Job, answer.at)
    }
  }

  const wires = Array.from({ length: connections }, () => openWire(gateway))
  const failed = new Promise<never>((_, reject) => {
    for (const wire of wires) pull(wire).catch(reject)
  })
  failed.catch(() => undefined)

  async function sample(kind: Kind, n: number): Promise<number> {
    const inHand = new Promise<number>((resolve) => waiting.set(`${kind}${n}`, { dueAt: NaN, resolve }))
    const delayMs = kind === 'delayed' ? instants.reserve(200, 3_000) : 0
    if (kind === 'lease') instants.reserve(leaseSeconds * 1000, leaseSeconds * 1000)
    const published = await publishing(() =>
      publisher.query<{ id: string }>({
        name: `publish_${kind}`,
        text: `select pullgate.publish('${topic}', $1::text, delay => make_interval(secs => $2)) as id`,
        values: [JSON.stringify({ kind, n }), delayMs / 1000],
      }),
    )
    if (kind === 'delayed') {
      const own = waiting.get(`${kind}${n}`)
      if (own !== undefined) own.dueAt = await instantOf('due_at', published.rows[0]?.id ?? '')
    }
    return Promise.race([inHand, failed])
  }

  return {
    measure(kind: Kind, samples: number): Promise<number[]> {
      return Promise.all(
        Array.from({ length: samples }, (_, n) => instants.begin().then(() => sample(kind, n))),
      )
    },
    async close(): Promise<void> {
      closed = true
      for (const wire of wires) wire.close()
      await publisher.end()
      await reader.end()
    },
  }
}
