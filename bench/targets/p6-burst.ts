import type pg from 'pg'
import { fill } from '../lib/control.ts'
import { topic } from '../lib/flow.ts'
import { claimRaw, completeRaw, heartbeatRaw, subscribeRaw } from '../lib/raw.ts'
import type { Rig } from '../lib/rig.ts'
import { pick, ratio, takeTurns } from '../lib/rows.ts'
import { summarize } from '../lib/stats.ts'
import { now } from '../lib/time.ts'
import type { Part } from './target.ts'

const before = 20_000
const batch = 100
const warmUp = 5
const rounds = 40

/** Statistics of the emptied table, which keeps its pages: the planner takes it for empty, whatever comes. */
async function emptyAndAnalyzed(rig: Rig, name: string): Promise<string> {
  const url = await rig.database(name, 'pullgate')
  const client = await rig.connect(url)
  await client.query('alter table pullgate.job set (autovacuum_enabled = off)')
  await fill(client, topic, before)
  const subscription = await subscribeRaw(client, topic)
  for (let done = 0; done < before; done += 1_000) {
    await completeRaw(client, await claimRaw(client, topic, subscription, 1_000))
  }
  await client.query('vacuum (analyze, truncate off) pullgate.job')
  return url
}

type Side = { readonly client: pg.Client; readonly subscription: string }

async function burst(rig: Rig, name: string, jobs: number, analyzed: boolean): Promise<Side> {
  const client = await rig.connect(await emptyAndAnalyzed(rig, name))
  await client.query('set synchronous_commit = off')
  await client.query(
    `select count(*) from pullgate.publish_many($1, array_fill('{"n": 1}'::text, array[$2::integer]))`,
    [topic, jobs],
  )
  if (analyzed) await client.query('vacuum analyze pullgate.job')
  return { client, subscription: await subscribeRaw(client, topic) }
}

type Times = Record<'claim' | 'heartbeat' | 'settle', number[]>
const noTimes = (): Times => ({ claim: [], heartbeat: [], settle: [] })

/** One batch through its life, in ms per statement. */
async function once({ client, subscription }: Side, times: Times): Promise<void> {
  const claimed = now()
  const jobs = await claimRaw(client, topic, subscription, batch)
  const beating = now()
  if (jobs.length < batch) throw new Error(`a claim of ${batch} got ${jobs.length} jobs`)
  await heartbeatRaw(client, jobs)
  const settling = now()
  await completeRaw(client, jobs)
  times.claim.push(beating - claimed)
  times.heartbeat.push(settling - beating)
  times.settle.push(now() - settling)
}

export const burstAfterIdle: Part = {
  what: 'a burst after an analyzed idle',
  async measure(rig, { repeats, quick }) {
    const jobs = quick ? 30_000 : 100_000
    const stale = await burst(rig, 'stale', jobs, false)
    const fresh = await burst(rig, 'fresh', jobs, true)
    const { medians } = await takeTurns(repeats, {
      async medians() {
        const times = { stale: noTimes(), fresh: noTimes() }
        const sides = [
          { at: stale, times: times.stale },
          { at: fresh, times: times.fresh },
        ]
        for (let n = 0; n < rounds + warmUp; n += 1) {
          for (const side of n % 2 === 0 ? sides : sides.toReversed()) await once(side.at, side.times)
        }
        const median = (side: Times, of: keyof Times) => summarize(side[of].slice(warmUp)).p50
        return {
          stale: (of: keyof Times) => median(times.stale, of),
          fresh: (of: keyof Times) => median(times.fresh, of),
        }
      },
    })
    return (['claim', 'heartbeat', 'settle'] as const).map((of) =>
      ratio(
        { target: 'P6', what: `${of} of ${batch}, ${jobs / 1000},000 jobs after an analyzed idle` },
        pick(medians, (one) => one.stale(of)),
        'ms',
        { ...pick(medians, (one) => one.fresh(of)), what: 'analyzed after the burst' },
        { atMost: 1.2 },
      ),
    )
  },
}
