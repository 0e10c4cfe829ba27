import { subscribe } from '../lib/control.ts'
import { afterWarmUp, emptied, runFlow, topic } from '../lib/flow.ts'
import type { Consumers, Flow } from '../lib/flow.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { figure, least, pick, ratio, takeTurns } from '../lib/rows.ts'
import type { Series } from '../lib/rows.ts'
import { steady } from '../lib/shape.ts'
import type { Shape } from '../lib/shape.ts'
import type { Summary } from '../lib/stats.ts'
import type { Part, Scale, Target } from './target.ts'

const executors = 256
const saturatedShare = 0.8

async function throughGateway(rig: Rig, gateway: string, shape: Shape): Promise<Flow> {
  await emptied(rig)
  const subscriptions = [await subscribe(gateway, topic)]
  return runFlow(rig, { executors: { gateways: [gateway], subscriptions, connections: executors } }, shape)
}

async function latencies(rig: Rig, raw: 'listen' | 'tick', shape: Shape): Promise<Summary> {
  await emptied(rig)
  const consumers: Consumers = { raw }
  const flow = await runFlow(rig, consumers, shape)
  return afterWarmUp(flow, flow.inHand)
}

/** At this median the raw consumer is only catching up: the machine does not carry the rate, whoever consumes. */
const collapsedMs = 500

function rows(rate: number, own: Series<Summary>, listen: Series<Summary>, tick: Series<Summary>): Row[] {
  return (['p50', 'p99'] as const).map((part) => {
    const reference = least(
      pick(listen, (summary) => summary[part]),
      pick(tick, (summary) => summary[part]),
    )
    const median = least(
      pick(listen, ({ p50 }) => p50),
      pick(tick, ({ p50 }) => p50),
    )
    const carried = median.values.every((value) => value < collapsedMs)
    const what = `better raw consumer${carried ? '' : ' (the machine does not carry this rate even for it)'}`
    const head = { target: 'P2', what: `${rate}/s, scheduled → in hand, ${part}` }
    return ratio(
      head,
      pick(own, (summary) => summary[part]),
      'ms',
      { ...reference, what },
      { atMost: 1.5 },
    )
  })
}

function atRate(rate: number): Part {
  return {
    what: `${rate} publishes/s`,
    async measure(rig: Rig, { repeats, quick }: Scale): Promise<Row[]> {
      const gateway = await rig.gateway()
      const shape = steady(rate, quick ? 3 : 10)
      // The gateway lives through all repeats, so its first one would be the only one to meet a cold process.
      await throughGateway(rig, gateway.url, steady(rate, 0.5))
      const { own, listen, tick } = await takeTurns(repeats, {
        own: async () => {
          const flow = await throughGateway(rig, gateway.url, shape)
          return afterWarmUp(flow, flow.inHand)
        },
        listen: () => latencies(rig, 'listen', shape),
        tick: () => latencies(rig, 'tick', shape),
      })
      return rows(rate, own, listen, tick)
    },
  }
}

const ladder = [600, 850, 1_200, 1_700, 2_400, 3_400, 4_800]

/** The highest rate at which jobs came into executors' hands in any step of a rising rate. */
async function saturation(rig: Rig, gateway: string, stepSeconds: number): Promise<number> {
  const phases = ladder.map((rate) => ({ rate, seconds: stepSeconds }))
  const { scheduledAt, inHandAt } = await throughGateway(rig, gateway, phases)
  const start = scheduledAt[0] ?? 0
  const delivered = phases.map((_, step) => {
    const from = start + step * stepSeconds * 1000
    return inHandAt.filter((at) => at >= from && at < from + stepSeconds * 1000).length / stepSeconds
  })
  return Math.max(...delivered)
}

/** Median of the last third over that of the first: grows without end if a backlog does. */
function growth(flow: Flow, seconds: number): number {
  const third = (seconds * 1000) / 3
  const early = afterWarmUp(flow, flow.inHand, 0, third)
  const late = afterWarmUp(flow, flow.inHand, 2 * third)
  return late.p50 / early.p50
}

const belowSaturation: Part = {
  what: '80 % of the saturation rate',
  async measure(rig, { repeats, quick }) {
    const gateway = await rig.gateway()
    const seconds = quick ? 4 : 10
    const { run } = await takeTurns(repeats, {
      run: async () => {
        const most = await saturation(rig, gateway.url, quick ? 1 : 1.5)
        const rate = Math.floor(most * saturatedShare)
        const flow = await throughGateway(rig, gateway.url, steady(rate, seconds))
        return { most, growth: growth(flow, seconds), p99: afterWarmUp(flow, flow.inHand).p99 }
      },
    })
    const most = pick(run, (one) => one.most)
    const rates = most.values.map((rate) => Math.floor(rate * saturatedShare)).join(', ')
    return [
      figure({ target: 'P2', what: 'saturation rate (for information)' }, most, 'per s', { atLeast: 0 }),
      figure(
        { target: 'P2', what: `at 80 % of it (${rates}/s): median of the last third ÷ that of the first` },
        pick(run, (one) => one.growth),
        '×',
        { atMost: 2 },
      ),
      figure(
        { target: 'P2', what: 'at 80 % of it: p99, scheduled → in hand' },
        pick(run, ({ p99 }) => p99),
        'ms',
        { atMost: collapsedMs },
      ),
    ]
  },
}

export const p2: Target = {
  id: 'P2',
  title: 'latency under open load, 256 executors',
  parts: [atRate(500), atRate(1_000), atRate(2_000), belowSaturation],
}
