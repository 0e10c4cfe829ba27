import type pg from 'pg'
import { insertJobs } from '../lib/control.ts'
import { topic } from '../lib/flow.ts'
import { claimRaw, completeRaw, subscribeRaw } from '../lib/raw.ts'
import type { RawJob } from '../lib/raw.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { pick, ratio, takeTurns } from '../lib/rows.ts'
import { summarize } from '../lib/stats.ts'
import { now } from '../lib/time.ts'
import type { Part, Scale } from './target.ts'

const smallReady = 1_000
const rounds = 200
const warmUp = 20
const batch = 10

type Side = { readonly client: pg.Client; readonly subscription: string }

async function openSide(rig: Rig, url: string): Promise<Side> {
  const client = await rig.connect(url)
  // The cost of the claim is asked for here, not that of the disk.
  await client.query('set synchronous_commit = off')
  return { client, subscription: await subscribeRaw(client, topic) }
}

async function timeClaim({ client, subscription }: Side, count: number, taken: RawJob[]): Promise<number> {
  const startedAt = now()
  const jobs = await claimRaw(client, topic, subscription, count)
  const ms = now() - startedAt
  if (jobs.length < count) throw new Error(`a claim of ${count} got ${jobs.length} jobs`)
  taken.push(...jobs)
  return ms
}

/** Claim by claim in turns; medians in ms. The small side is filled up and the claimed jobs are completed between. */
async function compare(small: Side, big: Side, count: number) {
  const times = { small: [] as number[], big: [] as number[] }
  const taken = { small: [] as RawJob[], big: [] as RawJob[] }
  for (let n = 0; n < rounds / Math.sqrt(count) + warmUp; n += 1) {
    times.small.push(await timeClaim(small, count, taken.small))
    times.big.push(await timeClaim(big, count, taken.big))
  }
  await completeRaw(small.client, taken.small)
  await completeRaw(big.client, taken.big)
  await insertJobs(small.client, topic, 'ready', taken.small.length)
  await insertJobs(big.client, topic, 'ready', taken.big.length)
  const median = (samples: number[]) => summarize(samples.slice(warmUp)).p50
  return { small: median(times.small), big: median(times.big) }
}

async function rows(rig: Rig, { repeats }: Scale, what: string): Promise<Row[]> {
  const small = await openSide(rig, await rig.database('small', 'pullgate'))
  await insertJobs(small.client, topic, 'ready', smallReady)
  const big = await openSide(rig, rig.url)
  const { one, ten } = await takeTurns(repeats, {
    one: () => compare(small, big, 1),
    ten: () => compare(small, big, batch),
  })
  const row = (label: string, series: typeof one) =>
    ratio(
      { target: 'P6', what: `${label}, ${what}` },
      pick(series, (medians) => medians.big),
      'ms',
      { ...pick(series, (medians) => medians.small), what: `${smallReady} ready in a database of their own` },
      { atMost: 1.2 },
    )
  return [row('claim of 1', one), row(`claim of ${batch}`, ten)]
}

const millions = (count: number) => `${count / 1e6} M`

const backlog: Part = {
  what: 'claims beside many ready jobs',
  async measure(rig, scale) {
    const admin = await rig.connect()
    const jobs = scale.quick ? 500_000 : 5_000_000
    await insertJobs(admin, topic, 'ready', jobs)
    return rows(rig, scale, `${millions(jobs)} ready`)
  },
}

const leased: Part = {
  what: 'claims beside many leased jobs',
  async measure(rig, scale) {
    const admin = await rig.connect()
    const jobs = scale.quick ? 100_000 : 1_000_000
    await insertJobs(admin, topic, 'running', jobs)
    await insertJobs(admin, topic, 'ready', smallReady)
    return rows(rig, scale, `${millions(jobs)} leased`)
  },
}

export const claimRows: readonly Part[] = [backlog, leased]
