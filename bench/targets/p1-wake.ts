import { createHttp } from '../lib/http.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { spread, summarize } from '../lib/stats.ts'
import type { Summary } from '../lib/stats.ts'
import { sleep } from './target.ts'
import type { Target } from './target.ts'

const publish = (topic: string) => `select pullgate.publish('${topic}', '{"command": "plan"}')`
/** Between park and publish, so that topics just armed, long armed and just disarmed all count. */
const gapMs = () => 3_000 * Math.random() ** 3

/** Publish sent → complete answer in the executor's hand, idle, one executor. */
async function throughGateway(rig: Rig, gateway: string, samples: number): Promise<Summary> {
  const http = createHttp(1)
  const publisher = await rig.connect()
  const id = await http.subscribe(gateway, 'wake')
  const times: number[] = []
  for (let n = 0; n < samples; n += 1) {
    const pull = http.send('PATCH', `${gateway}/subscriptions/${id}`)
    await sleep(gapMs())
    const sentAt = performance.now()
    const published = publisher.query({ name: 'publish', text: publish('wake') })
    const { text, at } = await pull
    times.push(at - sentAt)
    await published
    // A lease that ends in a later sample would hand the job out again there.
    const { id: job, lease } = JSON.parse(text) as { id: string; lease: string }
    await http.send('POST', `${gateway}/jobs/${job}/complete`, JSON.stringify({ lease }))
  }
  http.close()
  await publisher.end()
  return summarize(times)
}

/** The floor: LISTEN, then the same claim, raw, without HTTP. */
async function rawConsumer(rig: Rig, samples: number): Promise<Summary> {
  const [publisher, listener, claimer] = [await rig.connect(), await rig.connect(), await rig.connect()]
  await listener.query('listen pullgate_wake')
  const subscribed = await claimer.query<{ id: string }>(
    `select id from pullgate.subscribe('{floor}', null, 'explicit', 60, null)`,
  )
  const claim = {
    name: 'claim',
    text: `select * from pullgate.claim(array[pullgate.topic_id('floor')], $1::uuid[], '{1}', '{}', '{}')`,
    values: [[subscribed.rows[0]?.id]],
  }
  const times: number[] = []
  for (let n = 0; n < samples; n += 1) {
    const inHand = new Promise<number>((resolve, reject) => {
      listener.once('notification', () => {
        claimer.query(claim).then(() => resolve(performance.now()), reject)
      })
    })
    await sleep(gapMs())
    const sentAt = performance.now()
    const published = publisher.query({ name: 'publish', text: publish('floor') })
    times.push((await inHand) - sentAt)
    await published
    await claimer.query(`select pullgate.complete(id) from pullgate.job where state = 'running'`)
  }
  await Promise.all([publisher, listener, claimer].map((client) => client.end()))
  return summarize(times)
}

export const p1: Target = {
  id: 'P1',
  title: 'wake: publish sent to the job in hand, idle',
  async measure(rig, { repeats, quick }) {
    const samples = quick ? 50 : 300
    const gateway = await rig.gateway()
    const pairs: { readonly own: Summary; readonly floor: Summary }[] = []
    for (let n = 0; n < repeats; n += 1) {
      const floor = await rawConsumer(rig, samples)
      pairs.push({ floor, own: await throughGateway(rig, gateway.url, samples) })
    }
    await gateway.stop()
    const row = (part: 'p50' | 'p99', goal: number): Row => {
      const ratio = spread(pairs.map(({ own, floor }) => own[part] / floor[part]))
      return {
        target: 'P1',
        what: `wake ${part}`,
        measured: spread(pairs.map(({ own }) => own[part])),
        unit: 'ms',
        reference: { what: 'raw LISTEN + claim', value: spread(pairs.map(({ floor }) => floor[part])) },
        ratio,
        goal: `≤ ${goal}`,
        met: ratio.median <= goal,
      }
    }
    return [row('p50', 1.25), row('p99', 1.5)]
  },
}
