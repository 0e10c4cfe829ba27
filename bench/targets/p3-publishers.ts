import { subscribe, subscribeEach } from '../lib/control.ts'
import { afterWarmUp, emptied, runFlow, topic } from '../lib/flow.ts'
import type { Executed, Executors } from '../lib/flow.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { figure, pick, ratio, takeTurns } from '../lib/rows.ts'
import { bursts, steady } from '../lib/shape.ts'
import type { Shape } from '../lib/shape.ts'
import { countNotifications } from '../lib/watch.ts'
import type { Part, Target } from './target.ts'

const connections = 32
const spec = '{"command": "plan"}'
const publish = `select pullgate.publish('${topic}', '${spec}')`
const publishTo = `select pullgate.publish($1, '${spec}')`
// The same row, without a trigger: what Postgres itself can do.
const plainInsert = `insert into bench_plain (lane_id, topic_id, state, job_spec) values (2, 1, 'ready', '${spec}')`
const topics = Array.from({ length: 1_000 }, (_, n) => `topic${n}`)
const notifyLimit = { atMost: 200 } as const
const slowMs = 1_000

type Measured = { readonly perSecond: number; readonly notifications: number }

async function rate(
  rig: Rig,
  statement: string,
  seconds: number,
  parameters?: readonly string[],
): Promise<number> {
  const load = rig.load<{ done: number; seconds: number }>('saturate.ts', {
    ...{ connections, statement, seconds },
    ...(parameters === undefined ? {} : { parameters }),
  })
  const result = await load.result
  return result.done / result.seconds
}

/** Publishers at saturation while slow executors are attached. */
async function beside(rig: Rig, executors: Executors, saturate: () => Promise<number>): Promise<Measured> {
  const secondsMax = 60
  const slow = rig.load<Executed>('executors.ts', { ...executors, max: null, waitSeconds: 25, secondsMax })
  await slow.ready
  const notifications = await countNotifications(rig)
  const perSecond = await saturate()
  const heard = await notifications.perSecond()
  await slow.stop()
  return { perSecond, notifications: heard }
}

const saturated: Part = {
  what: 'at saturation, 32 connections',
  async measure(rig, { repeats, quick }) {
    const seconds = quick ? 2 : 8
    const admin = await rig.connect()
    await admin.query('drop table if exists bench_plain')
    await admin.query('create table bench_plain (like pullgate.job including all)')
    const gateways = async (subscriptions: (gateway: string) => Promise<string[]>, count: number) => {
      const gateway = await rig.gateway()
      const executors = { gateways: [gateway.url], subscriptions: await subscriptions(gateway.url) }
      return { executors: { ...executors, connections: count, holdMs: slowMs }, stop: () => gateway.stop() }
    }
    const { floor, alone, attached, many } = await takeTurns(repeats, {
      floor: async () => {
        await admin.query('truncate bench_plain')
        return rate(rig, plainInsert, seconds)
      },
      alone: async () => {
        await emptied(rig)
        return rate(rig, publish, seconds)
      },
      attached: async () => {
        await emptied(rig)
        const { executors, stop } = await gateways(async (url) => [await subscribe(url, topic)], 10)
        const measured = await beside(rig, executors, () => rate(rig, publish, seconds))
        await stop()
        return measured
      },
      many: async () => {
        await rig.reset()
        const { executors, stop } = await gateways(() => subscribeEach(admin, topics), topics.length)
        const measured = await beside(rig, executors, () => rate(rig, publishTo, seconds, topics))
        await stop()
        return measured
      },
    })
    await admin.query('drop table bench_plain')
    const own = { ...alone, what: 'publish() alone' }
    const speed = (one: Measured) => one.perSecond
    const heard = (one: Measured) => one.notifications
    const slowTen = 'gateway, ten executors of 1 job/s'
    const thousand = '1,000 topics, one waiter each (1 job/s each)'
    return [
      ratio(
        { target: 'P3a', what: 'publish() alone' },
        ...([alone, 'per s', { ...floor, what: 'INSERT without trigger' }, { atLeast: 0.65 }] as const),
      ),
      ratio({ target: 'P3b', what: slowTen }, pick(attached, speed), 'per s', own, { atLeast: 0.95 }),
      figure({ target: 'P3b', what: `${slowTen}: NOTIFYs` }, pick(attached, heard), 'per s', notifyLimit),
      ratio({ target: 'P3d', what: thousand }, pick(many, speed), 'per s', own, { atLeast: 0.8 }),
      figure({ target: 'P3d', what: `${thousand}: NOTIFYs` }, pick(many, heard), 'per s', notifyLimit),
    ]
  },
}

function openLoop(what: string, shapeFor: (seconds: number) => Shape): Part {
  return {
    what,
    async measure(rig, { repeats, quick }) {
      const gateway = await rig.gateway()
      const shape = shapeFor(quick ? 3 : 8)
      const { without, beside256 } = await takeTurns(repeats, {
        without: async () => {
          await emptied(rig)
          const flow = await runFlow(rig, 'none', shape)
          return { ...afterWarmUp(flow, flow.acknowledged), notifications: 0 }
        },
        beside256: async () => {
          await emptied(rig)
          const subscriptions = [await subscribe(gateway.url, topic)]
          const notifications = await countNotifications(rig)
          const executors = { gateways: [gateway.url], subscriptions, connections: 256 }
          const flow = await runFlow(rig, { executors }, shape)
          return { ...afterWarmUp(flow, flow.acknowledged), notifications: await notifications.perSecond() }
        },
      })
      const row = (part: 'p50' | 'p99'): Row =>
        ratio(
          { target: 'P3c', what: `publish acknowledged, ${what}, ${part}` },
          pick(beside256, (one) => one[part]),
          'ms',
          { ...pick(without, (one) => one[part]), what: 'no executor' },
          { atMost: 1.5 },
        )
      const heard = pick(beside256, (one) => one.notifications)
      return [
        row('p50'),
        row('p99'),
        figure({ target: 'P3c', what: `${what}: NOTIFYs` }, heard, 'per s', notifyLimit),
      ]
    },
  }
}

export const p3: Target = {
  id: 'P3',
  title: 'publishers',
  parts: [
    saturated,
    openLoop('1,000/s, 256 executors', (seconds) => steady(1_000, seconds)),
    openLoop('1,000/s in bursts of 100 ms every 400 ms, 256 executors', (seconds) =>
      bursts(1_000, seconds, 0.1, 0.3),
    ),
  ],
}
