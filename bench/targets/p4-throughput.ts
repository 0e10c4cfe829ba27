import { fill, subscribe } from '../lib/control.ts'
import type { Executed } from '../lib/flow.ts'
import { topic } from '../lib/flow.ts'
import { installPeers } from '../lib/peers.ts'
import type { Rig } from '../lib/rig.ts'
import { figure, ratio, takeTurns } from '../lib/rows.ts'
import type { Part, Target } from './target.ts'

type Drained = { readonly jobs: number; readonly seconds: number }
const rateOf = ({ jobs, seconds }: Drained) => jobs / seconds

type Mode = {
  readonly what: string
  readonly connections: number
  readonly max: number | null
  readonly goal: number
  readonly jobs: number
  readonly graphile: {
    readonly what: string
    readonly batch: boolean
    readonly jobs: number
    readonly ratio: number
  }
  readonly boss: {
    readonly what: string
    readonly batch: number
    readonly loops: number
    readonly jobs: number
  }
}

const single: Mode = {
  what: 'pull + complete, one job per pair',
  connections: 32,
  max: null,
  goal: 5_000,
  jobs: 20_000,
  graphile: { what: 'graphile-worker, plain', batch: false, jobs: 15_000, ratio: 1.5 },
  boss: { what: 'pg-boss, fetch(1) + complete × 8', batch: 1, loops: 8, jobs: 2_500 },
}

const batches: Mode = {
  what: 'max=100, completes ride on the next pull',
  connections: 8,
  max: 100,
  goal: 50_000,
  jobs: 100_000,
  graphile: {
    what: 'graphile-worker, localQueue 500, batched completes',
    batch: true,
    jobs: 100_000,
    ratio: 1.2,
  },
  boss: { what: 'pg-boss, fetch(50) + complete', batch: 50, loops: 1, jobs: 10_000 },
}

async function throughGateway(rig: Rig, gateway: string, mode: Mode, jobs: number): Promise<number> {
  await rig.reset()
  const admin = await rig.connect()
  await fill(admin, topic, jobs)
  await admin.end()
  const { connections, max } = mode
  const executors = rig.load<Executed>('executors.ts', {
    gateways: [gateway],
    subscriptions: [await subscribe(gateway, topic)],
    ...{ connections, max, jobs, waitSeconds: 1, secondsMax: 120 },
  })
  const { completed, seconds } = await executors.result
  return rateOf({ jobs: completed, seconds })
}

async function throughPeer(rig: Rig, script: string, input: object): Promise<number> {
  const databaseUrl = await rig.database('peer', 'empty')
  return rateOf(await rig.peer<Drained>(script, { databaseUrl, ...input }).result)
}

function part(mode: Mode): Part {
  return {
    what: mode.what,
    async measure(rig, { repeats, quick }) {
      installPeers()
      const gateway = await rig.gateway()
      const scaled = (jobs: number) => jobs / (quick ? 5 : 1)
      const { graphile, boss } = mode
      const { own, plain, pgBoss } = await takeTurns(repeats, {
        own: () => throughGateway(rig, gateway.url, mode, scaled(mode.jobs)),
        plain: () =>
          throughPeer(rig, 'graphile.mjs', {
            mode: 'drain',
            batch: graphile.batch,
            jobs: scaled(graphile.jobs),
          }),
        pgBoss: () => throughPeer(rig, 'pg-boss.mjs', { ...boss, jobs: scaled(boss.jobs) }),
      })
      const head = { target: 'P4', what: mode.what }
      return [
        figure(head, own, 'jobs/s', { atLeast: mode.goal }),
        ratio(head, own, 'jobs/s', { ...plain, what: graphile.what }, { atLeast: graphile.ratio }),
        ratio(head, own, 'jobs/s', { ...pgBoss, what: boss.what }, { atLeast: 2 }),
      ]
    },
  }
}

export const p4: Target = {
  id: 'P4',
  title: 'throughput over HTTP from a full queue, explicit acknowledgement',
  parts: [part(single), part(batches)],
}
