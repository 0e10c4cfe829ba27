import { createHttp } from '../lib/http.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { spread } from '../lib/stats.ts'
import type { Target } from './target.ts'

type Mode = {
  readonly what: string
  readonly connections: number
  readonly max: number | null
  readonly goal: number
}

const modes: readonly Mode[] = [
  { what: 'pull + complete, one job per pair', connections: 32, max: null, goal: 5_000 },
  { what: 'max=100, completes ride on the next pull', connections: 8, max: 100, goal: 50_000 },
]

async function jobsPerSecond(rig: Rig, gateway: string, mode: Mode, jobs: number): Promise<number> {
  await rig.reset()
  const admin = await rig.connect()
  await admin.query(
    `select count(*) from pullgate.publish_many('jobs',
      (select array_agg('{"command": "plan", "n": ' || n || '}') from generate_series(1, $1::integer) n))`,
    [jobs],
  )
  await admin.query('analyze pullgate.job')
  await admin.end()
  const http = createHttp(1)
  const subscription = await http.subscribe(gateway, 'jobs')
  http.close()
  const { connections, max } = mode
  const result = (await rig.load('pulls.ts', { gateway, subscription, connections, max, jobs })) as {
    jobs: number
    seconds: number
  }
  return result.jobs / result.seconds
}

export const p4: Target = {
  id: 'P4',
  title: 'throughput over HTTP from a full queue, explicit acknowledgement',
  async measure(rig, { repeats, quick }) {
    const gateway = await rig.gateway()
    const rows: Row[] = []
    for (const mode of modes) {
      const jobs = (mode.max === null ? 20_000 : 100_000) / (quick ? 5 : 1)
      const rates: number[] = []
      for (let n = 0; n < repeats; n += 1) rates.push(await jobsPerSecond(rig, gateway.url, mode, jobs))
      const measured = spread(rates)
      const goal = `≥ ${mode.goal} jobs/s`
      rows.push({
        target: 'P4',
        what: mode.what,
        measured,
        unit: 'jobs/s',
        goal,
        met: measured.median >= mode.goal,
      })
    }
    await gateway.stop()
    return rows
  },
}
