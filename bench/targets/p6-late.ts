import { subscribe } from '../lib/control.ts'
import { afterWarmUp, emptied, runFlow, topic } from '../lib/flow.ts'
import type { Rig } from '../lib/rig.ts'
import { pick, ratio, takeTurns } from '../lib/rows.ts'
import { steady } from '../lib/shape.ts'
import type { Part } from './target.ts'

const rate = 200
const every = 4
const lateMs = 200

async function measureLate(rig: Rig, gateway: string, seconds: number) {
  await emptied(rig)
  const subscriptions = [await subscribe(gateway, topic)]
  const executors = { gateways: [gateway], subscriptions, connections: 256 }
  const flow = await runFlow(rig, { executors }, steady(rate, seconds), { every, ms: lateMs })
  const of = (late: boolean) => flow.fromCommit.map((ms, n) => ((n % every === 0) === late ? ms : NaN))
  return { late: afterWarmUp(flow, of(true)), prompt: afterWarmUp(flow, of(false)) }
}

export const late: Part = {
  what: 'publishers that commit late',
  async measure(rig, { repeats, quick }) {
    const gateway = await rig.gateway()
    const { run } = await takeTurns(repeats, { run: () => measureLate(rig, gateway.url, quick ? 4 : 12) })
    return (['p50', 'p99'] as const).map((part) =>
      ratio(
        { target: 'P6', what: `commit → in hand, publishers that commit ${lateMs} ms late, ${part}` },
        pick(run, (one) => one.late[part]),
        'ms',
        { ...pick(run, (one) => one.prompt[part]), what: 'the others' },
        { atMost: 1.5 },
      ),
    )
  },
}
