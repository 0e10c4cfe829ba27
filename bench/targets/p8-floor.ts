import { createGate } from '../lib/gate.ts'
import { clockOffset } from '../lib/instants.ts'
import type { Instants } from '../lib/instants.ts'
import { claimDueRaw, completeRaw, subscribeRaw } from '../lib/raw.ts'
import type { Rig } from '../lib/rig.ts'
import { now, sleep } from '../lib/time.ts'

/**
 * A raw timer, then run_due and claim in one round trip. In a database of its own: the gateway under measurement
 * would make its jobs ready too.
 */
export async function rawFloor(rig: Rig, instants: Instants) {
  const url = await rig.database('floor', 'pullgate')
  const publisher = await rig.connect(url)
  const claimer = await rig.connect(url)
  const offset = await clockOffset(publisher)
  const topic = 'floor'
  const publishing = createGate()
  const claiming = createGate()
  const subscription = await subscribeRaw(claimer, topic)

  /** Publishes; resolves to the instant at which the job falls due. */
  async function publish(delayMs: number): Promise<number> {
    const { rows } = await publisher.query<{ id: string }>({
      name: 'due_publish',
      text: `select pullgate.publish('${topic}', '{}', delay => make_interval(secs => $1)) as id`,
      values: [delayMs / 1000],
    })
    const dated = await publisher.query<{ due: string }>({
      name: 'due_at',
      text: 'select extract(epoch from due_at) * 1000 as due from pullgate.job where id = $1',
      values: [rows[0]?.id],
    })
    return Number(dated.rows[0]?.due) - offset
  }

  async function claimOne(): Promise<number> {
    for (;;) {
      const jobs = await claimDueRaw(claimer, topic, subscription)
      const at = now()
      if (jobs.length === 0) continue
      await completeRaw(claimer, jobs)
      return at
    }
  }

  async function sample(): Promise<number> {
    const delayMs = instants.reserve(200, 3_000)
    const dueAt = await publishing(() => publish(delayMs))
    await sleep(Math.max(0, Math.ceil(dueAt - now())))
    return (await claiming(claimOne)) - dueAt
  }

  return {
    async measure(samples: number): Promise<number[]> {
      const times: Promise<number>[] = []
      for (let n = 0; n < samples; n += 1) times.push(instants.begin().then(sample))
      return Promise.all(times)
    },
    async close(): Promise<void> {
      await publisher.end()
      await claimer.end()
    },
  }
}
