import { rawFloor } from './p8-floor.ts'
import { openExecutors } from './p8-executors.ts'
import type { Kind } from './p8-executors.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { pick, ratio, takeTurns } from '../lib/rows.ts'
import { summarize } from '../lib/stats.ts'
import type { Summary } from '../lib/stats.ts'
import { createInstants } from '../lib/instants.ts'
import type { Part, Target } from './target.ts'

const kinds: readonly { readonly kind: Kind; readonly what: string }[] = [
  { kind: 'delayed', what: 'delayed job' },
  { kind: 'retry', what: 'retry (fail with retryAfterSeconds)' },
  { kind: 'lease', what: 'lease of 10 s that ended' },
]

type Measured = Record<Kind | 'floor', Summary>

/** All at the same time, and their instants apart, so that each finds the gateway idle. */
async function measureDue(rig: Rig, gateway: string, samples: number): Promise<Measured> {
  await rig.reset()
  const instants = createInstants(samples * 200)
  const executors = await openExecutors(rig, gateway, instants)
  const floor = await rawFloor(rig, instants)
  const own = kinds.map(({ kind }) => executors.measure(kind, samples))
  const [floorTimes, delayed = [], retry = [], lease = []] = await Promise.all([
    floor.measure(samples),
    ...own,
  ])
  await executors.close()
  await floor.close()
  return {
    delayed: summarize(delayed),
    retry: summarize(retry),
    lease: summarize(lease),
    floor: summarize(floorTimes),
  }
}

const part: Part = {
  what: 'delays of 0.2 to 3 s, leases of 10 s',
  async measure(rig, { repeats, quick }) {
    const gateway = await rig.gateway()
    const { run } = await takeTurns(repeats, { run: () => measureDue(rig, gateway.url, quick ? 25 : 70) })
    const row = ({ kind, what }: (typeof kinds)[number], at: 'p50' | 'p99'): Row =>
      ratio(
        { target: 'P8', what: `${what}: due → in hand, ${at}` },
        pick(run, (measured) => measured[kind][at]),
        'ms',
        { ...pick(run, (measured) => measured.floor[at]), what: 'raw timer + claim' },
        { atMost: 1.5 },
      )
    return kinds.flatMap((kind) => [row(kind, 'p50'), row(kind, 'p99')])
  },
}

export const p8: Target = { id: 'P8', title: 'due work, no other traffic', parts: [part] }
