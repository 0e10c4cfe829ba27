import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { spread } from '../lib/stats.ts'
import type { Target } from './target.ts'

const connections = 32
const publish = `select pullgate.publish('jobs', '{"command": "plan"}')`
// The same row, without a trigger: what Postgres itself can do.
const plainInsert = `insert into bench_plain (lane_id, topic_id, state, job_spec) values (2, 1, 'ready', '{"command": "plan"}')`

async function rate(rig: Rig, statement: string, seconds: number): Promise<number> {
  const result = (await rig.load('publishes.ts', { connections, statement, seconds })) as {
    done: number
    seconds: number
  }
  return result.done / result.seconds
}

export const p3: Target = {
  id: 'P3',
  title: 'publishers: publish() alone against a plain INSERT, 32 connections',
  async measure(rig, { repeats, quick }) {
    const seconds = quick ? 3 : 10
    const admin = await rig.connect()
    await admin.query('create table bench_plain (like pullgate.job including all)')
    const pairs: { readonly own: number; readonly floor: number }[] = []
    for (let n = 0; n < repeats; n += 1) {
      await rig.reset()
      await admin.query('truncate bench_plain')
      await admin.query(publish)
      pairs.push({ floor: await rate(rig, plainInsert, seconds), own: await rate(rig, publish, seconds) })
    }
    await admin.query('drop table bench_plain')
    const ratio = spread(pairs.map(({ own, floor }) => own / floor))
    const row: Row = {
      target: 'P3a',
      what: 'publish() alone',
      measured: spread(pairs.map(({ own }) => own)),
      unit: 'per s',
      reference: { what: 'INSERT without trigger', value: spread(pairs.map(({ floor }) => floor)) },
      ratio,
      goal: '≥ 0.65',
      met: ratio.median >= 0.65,
    }
    return [row]
  },
}
