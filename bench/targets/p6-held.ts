import { subscribe } from '../lib/control.ts'
import { afterWarmUp, emptied, runFlow, topic } from '../lib/flow.ts'
import type { Flow } from '../lib/flow.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { pick, ratio, takeTurns } from '../lib/rows.ts'
import { steady, warmUpMs } from '../lib/shape.ts'
import type { Part } from './target.ts'

const rate = 1_000

/** Who keeps dead rows from being removed, with a transaction of another table that stays open. */
const holders = {
  nobody: [],
  reader: ['begin isolation level repeatable read', 'select count(*) from bench_other'],
  writer: ['begin', 'insert into bench_other values (1)'],
} as const

type Measured = { readonly perSecond: number; readonly p99: number }

/** Of the second half, by when the dead rows of the first have piled up. */
function secondHalf(flow: Flow, seconds: number): Measured {
  const from = (seconds * 1000) / 2
  const start = (flow.scheduledAt[0] ?? 0) + warmUpMs
  const arrived = flow.inHandAt.filter((at) => at >= start + from && at < start + seconds * 1000)
  return {
    perSecond: arrived.length / (seconds / 2),
    p99: afterWarmUp(flow, flow.inHand, from).p99,
  }
}

async function measureHeld(rig: Rig, holder: keyof typeof holders, seconds: number): Promise<Measured> {
  await emptied(rig)
  const gateway = await rig.gateway()
  const subscriptions = [await subscribe(gateway.url, topic)]
  const client = await rig.connect()
  for (const statement of holders[holder]) await client.query(statement)
  const executors = { gateways: [gateway.url], subscriptions, connections: 256 }
  const flow = await runFlow(rig, { executors }, steady(rate, seconds))
  await client.end()
  await gateway.stop()
  return secondHalf(flow, seconds)
}

export const held: Part = {
  what: 'the transaction horizon held',
  async measure(rig, { repeats, quick, long }) {
    const seconds = long ? 300 : quick ? 5 : 15
    const admin = await rig.connect()
    await admin.query('create table if not exists bench_other (n integer)')
    const { nobody, reader, writer } = await takeTurns(long ? 1 : repeats, {
      nobody: () => measureHeld(rig, 'nobody', seconds),
      reader: () => measureHeld(rig, 'reader', seconds),
      writer: () => measureHeld(rig, 'writer', seconds),
    })
    const rows = (who: string, series: typeof nobody): Row[] => {
      const head = (what: string) => ({
        target: 'P6',
        what: `${rate} jobs/s, xmin held ${seconds} s by ${who}: ${what}`,
      })
      const part = (of: keyof Measured) =>
        [pick(series, (one) => one[of]), { ...pick(nobody, (one) => one[of]), what: 'not held' }] as const
      const [perSecond, unheldPerSecond] = part('perSecond')
      const [p99, unheldP99] = part('p99')
      return [
        ratio(head('throughput'), perSecond, 'jobs/s', unheldPerSecond, { atLeast: 0.95 }),
        ratio(head('p99'), p99, 'ms', unheldP99, { atMost: 1.25 }),
      ]
    }
    return [...rows('a reader', reader), ...rows('an idle writer', writer)]
  },
}
