import type { Rig } from './rig.ts'
import { register } from './control.ts'
import type { Load } from './children.ts'
import { publishAndNotify, publishSilently, silent } from './raw.ts'
import { offsets, warmUpMs } from './shape.ts'
import type { Shape } from './shape.ts'
import { summarize } from './stats.ts'
import type { Summary } from './stats.ts'
import { within } from './time.ts'

/** An open loop of publishers with consumers beside it, joined job by job. */
export type Flow = {
  readonly jobs: number
  /** From the scheduled instant until the job was in a consumer's hand; Infinity for one that never was. */
  readonly inHand: readonly number[]
  /** From the scheduled instant until publish was acknowledged. */
  readonly acknowledged: readonly number[]
  /** From the commit, as it was sent, until the job was in hand. */
  readonly fromCommit: readonly number[]
  /** By job: when it was due, on the machine's monotonic clock, and when it was in hand. */
  readonly scheduledAt: readonly number[]
  readonly inHandAt: readonly number[]
}

export type Received = { readonly ns: number[]; readonly at: number[] }
export type Executed = Received & {
  readonly ids: string[]
  readonly completed: number
  readonly seconds: number
}
type Published = {
  readonly scheduledAt: number[]
  readonly acknowledgedAt: (number | null)[]
  readonly committedAt: (number | null)[]
}

export type Executors = {
  readonly gateways: readonly string[]
  readonly subscriptions: readonly string[]
  readonly connections: number
  readonly holdMs?: number
}
export type Consumers = { readonly executors: Executors } | { readonly raw: 'listen' | 'tick' } | 'none'

export const topic = 'jobs'
export const publish = `select pullgate.publish('${topic}', $1::text)`
const publisherConnections = 16
// What is not in hand by then counts as never delivered.
const graceMs = 10_000

function startConsumers(
  rig: Rig,
  consumers: Consumers,
  jobs: number,
  seconds: number,
): Load<Received> | undefined {
  if (consumers === 'none') return undefined
  const secondsMax = seconds + 40
  if ('raw' in consumers) {
    return rig.load('raw-consumers.ts', { topic, kind: consumers.raw, batch: 256, jobs, secondsMax })
  }
  const { executors } = consumers
  // One more: the job that registered the topic.
  return rig.load('executors.ts', { ...executors, max: null, waitSeconds: 25, jobs: jobs + 1, secondsMax })
}

function startPublishers(
  rig: Rig,
  consumers: Consumers,
  shape: Shape,
  late?: { readonly every: number; readonly ms: number },
): Load<Published> {
  const raw = typeof consumers === 'object' && 'raw' in consumers ? consumers.raw : undefined
  const statement =
    raw === undefined ? publish : raw === 'listen' ? publishAndNotify(topic) : publishSilently(topic)
  return rig.load('publishers.ts', {
    connections: publisherConnections,
    statement,
    shape,
    ...(raw === undefined ? {} : { setup: silent }),
    ...(late === undefined ? {} : { late }),
  })
}

function join(published: Published, received: Received): Flow {
  const { scheduledAt } = published
  const inHandAt = new Array<number>(scheduledAt.length).fill(Infinity)
  received.ns.forEach((n, i) => (inHandAt[n] = Math.min(inHandAt[n] ?? Infinity, received.at[i] ?? Infinity)))
  return {
    jobs: scheduledAt.length,
    inHand: scheduledAt.map((due, n) => (inHandAt[n] ?? Infinity) - due),
    acknowledged: scheduledAt.map((due, n) => (published.acknowledgedAt[n] ?? Infinity) - due),
    fromCommit: scheduledAt.map(
      (_, n) => (inHandAt[n] ?? Infinity) - (published.committedAt[n] ?? -Infinity),
    ),
    scheduledAt,
    inHandAt,
  }
}

/** Runs both; jobs that are not in hand 10 s after the last publish are given up. */
export async function runFlow(
  rig: Rig,
  consumers: Consumers,
  shape: Shape,
  late?: { readonly every: number; readonly ms: number },
): Promise<Flow> {
  const schedule = offsets(shape)
  const consuming = startConsumers(rig, consumers, schedule.length, (schedule.at(-1) ?? 0) / 1000)
  await consuming?.ready
  const published = await startPublishers(rig, consumers, shape, late).result
  if (consuming === undefined) return join(published, { ns: [], at: [] })
  await within(graceMs, consuming.result)
  return join(published, await consuming.stop())
}

/** The queue emptied and the topic there, for the next flow. */
export async function emptied(rig: Rig): Promise<void> {
  await rig.reset()
  const admin = await rig.connect()
  await register(admin, topic)
  await admin.end()
}

const settleMs = 500

/** Of the jobs that were due from `fromMs` to `toMs` after the warm-up; NaN is no sample. */
export function afterWarmUp(
  flow: Flow,
  samples: readonly number[],
  fromMs = settleMs,
  toMs = Infinity,
): Summary {
  const start = (flow.scheduledAt[0] ?? 0) + warmUpMs
  return summarize(
    samples.filter((sample, n) => {
      const offset = (flow.scheduledAt[n] ?? 0) - start
      return offset >= fromMs && offset < toMs && !Number.isNaN(sample)
    }),
  )
}
