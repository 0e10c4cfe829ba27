import { fill, subscribe } from '../lib/control.ts'
import type { Gateway } from '../lib/children.ts'
import { emptied, runFlow, topic } from '../lib/flow.ts'
import type { Executed } from '../lib/flow.ts'
import type { Rig } from '../lib/rig.ts'
import { figure, pick, ratio, takeTurns } from '../lib/rows.ts'
import { steady } from '../lib/shape.ts'
import { committed } from '../lib/watch.ts'
import type { Part, Target } from './target.ts'

const rate = 1_000

function startGateways(rig: Rig, count: number): Promise<Gateway[]> {
  return Promise.all(Array.from({ length: count }, () => rig.gateway()))
}
const urls = (gateways: readonly Gateway[]) => gateways.map(({ url }) => url)
const stopAll = (gateways: readonly Gateway[]) => Promise.all(gateways.map((gateway) => gateway.stop()))

// Each gateway compiles its own code: about a second of a core over its first jobs.
const warmUpJobs = 2_000

async function empty(rig: Rig, gateways: readonly Gateway[], jobs: number): Promise<Executed> {
  await rig.reset()
  const admin = await rig.connect()
  await fill(admin, topic, jobs)
  await admin.end()
  const executors = rig.load<Executed>('executors.ts', {
    gateways: urls(gateways),
    subscriptions: [await subscribe(gateways[0]?.url ?? '', topic)],
    ...{ connections: 32, max: null, jobs, waitSeconds: 1, secondsMax: 120 },
  })
  return executors.result
}

/** A full queue through so many gateways: jobs per second, and jobs that came twice or never. */
async function drain(rig: Rig, count: number, jobs: number) {
  const gateways = await startGateways(rig, count)
  await empty(rig, gateways, warmUpJobs * count)
  const { ids, completed, seconds } = await empty(rig, gateways, jobs)
  await stopAll(gateways)
  const wrong = ids.length - new Set(ids).size + Math.abs(jobs - completed)
  return { perSecond: completed / seconds, wrong }
}

/**
 * Transactions per job at a steady rate, publishes apart; every statement of a gateway is one. Counted over the whole
 * life of the gateways and publishers, since a backend has told all it did only when it ends.
 */
async function transactionsPerJob(rig: Rig, count: number, seconds: number): Promise<number> {
  const observer = await rig.observer()
  await emptied(rig)
  const before = await committed(observer)
  const gateways = await startGateways(rig, count)
  const subscriptions = [await subscribe(gateways[0]?.url ?? '', topic)]
  const executors = { gateways: urls(gateways), subscriptions, connections: 256 }
  const { jobs, inHand } = await runFlow(rig, { executors }, steady(rate, seconds))
  await stopAll(gateways)
  const after = await committed(observer)
  await observer.end()
  const lost = inHand.filter((ms) => ms === Infinity).length
  if (lost > 0) throw new Error(`${lost} of ${jobs} jobs were not in hand after 10 s`)
  return (after - before - jobs) / jobs
}

const throughput: Part = {
  what: 'a full queue, 32 connections in all',
  async measure(rig, { repeats, quick }) {
    const jobs = quick ? 3_000 : 12_000
    const { one, two, four } = await takeTurns(repeats, {
      one: () => drain(rig, 1, jobs),
      two: () => drain(rig, 2, jobs),
      four: () => drain(rig, 4, jobs),
    })
    const reference = { ...pick(one, ({ perSecond }) => perSecond), what: '1 gateway' }
    return [['2 gateways', two] as const, ['4 gateways', four] as const].flatMap(([what, series]) => [
      ratio(
        { target: 'P7', what: `${what}: pull + complete` },
        pick(series, ({ perSecond }) => perSecond),
        'jobs/s',
        reference,
        { atLeast: 1 },
      ),
      figure(
        { target: 'P7', what: `${what}: jobs handed out twice or never` },
        pick(series, ({ wrong }) => wrong),
        'jobs',
        { atMost: 0 },
      ),
    ])
  },
}

const statements: Part = {
  what: '1,000 jobs/s, 256 executors',
  async measure(rig, { repeats, quick }) {
    const seconds = quick ? 2 : 6
    const { one, two, four } = await takeTurns(repeats, {
      one: () => transactionsPerJob(rig, 1, seconds),
      two: () => transactionsPerJob(rig, 2, seconds),
      four: () => transactionsPerJob(rig, 4, seconds),
    })
    const row = (what: string, series: typeof one) =>
      ratio(
        { target: 'P7', what: `${what}: transactions per job at 1,000 jobs/s` },
        series,
        'per job',
        { ...one, what: '1 gateway' },
        { atMost: 1.2 },
      )
    return [row('2 gateways', two), row('4 gateways', four)]
  },
}

export const p7: Target = { id: 'P7', title: 'several gateways', parts: [throughput, statements] }
