import { subscribe } from '../lib/control.ts'
import { createGate } from '../lib/gate.ts'
import type { Gate } from '../lib/gate.ts'
import { installPeers } from '../lib/peers.ts'
import { claimRaw, completeRaw, publishAndNotify, silent, subscribeRaw } from '../lib/raw.ts'
import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'
import { pick, ratio, takeTurns } from '../lib/rows.ts'
import { summarize } from '../lib/stats.ts'
import type { Summary } from '../lib/stats.ts'
import { now, sleep } from '../lib/time.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Part, Target } from './target.ts'

const spec = '{"command": "plan"}'
const lanes = 3
/** Between park and publish, so that topics just armed, long armed and just disarmed all count. */
const gapMs = () => 3_000 * Math.random() ** 3

/** One consumer and its publisher; `sample` is one job from publish to settled, in ms from publish to hand. */
type Lane = { prepare?(): Promise<void>; sample(): Promise<number>; close(): Promise<void> }

async function gatewayLane(rig: Rig, gateway: string, topic: string): Promise<Lane> {
  const wire = openWire(gateway)
  const publisher = await rig.connect()
  const id = await subscribe(gateway, topic)
  let pull: ReturnType<typeof wire.send>
  return {
    prepare() {
      pull = wire.send('PATCH', `/subscriptions/${id}`)
      return Promise.resolve()
    },
    async sample() {
      const sentAt = now()
      const text = `select pullgate.publish('${topic}', $1::text)`
      const published = publisher.query({ name: 'publish', text, values: [spec] })
      const answer = await pull
      await published
      // A lease that ends in a later sample would hand the job out again there.
      const job = jsonOf(answer) as { id: string; lease: string }
      jsonOf(await wire.send('POST', `/jobs/${job.id}/complete`, `{"lease":"${job.lease}"}`))
      return answer.at - sentAt
    },
    close() {
      wire.close()
      return publisher.end()
    },
  }
}

/** The floor: LISTEN, then the same claim, raw, without HTTP. */
async function rawLane(rig: Rig, topic: string): Promise<Lane> {
  const [publisher, listener, claimer] = [await rig.connect(), await rig.connect(), await rig.connect()]
  const channel = `bench_${topic}`
  await publisher.query(silent)
  await listener.query(`listen ${channel}`)
  const subscription = await subscribeRaw(claimer, topic)
  return {
    async sample() {
      const inHand = new Promise<number>((resolve, reject) => {
        listener.once('notification', () => {
          claimRaw(claimer, topic, subscription, 1).then((jobs) => {
            const at = now()
            completeRaw(claimer, jobs).then(() => resolve(at), reject)
          }, reject)
        })
      })
      const sentAt = now()
      const text = publishAndNotify(topic, channel)
      const published = publisher.query({ name: 'publish', text, values: [spec] })
      const at = await inHand
      await published
      return at - sentAt
    },
    async close() {
      await Promise.all([publisher, listener, claimer].map((client) => client.end()))
    },
  }
}

async function run(lane: Lane, samples: number, gate: Gate): Promise<number[]> {
  const times: number[] = []
  for (let n = 0; n < samples; n += 1) {
    await lane.prepare?.()
    await sleep(gapMs())
    times.push(await gate(() => lane.sample()))
  }
  await lane.close()
  return times
}

/**
 * All wait at the same time and are sampled one at a time: nothing else happens during a sample, and what else the
 * machine does meets all alike.
 */
async function measureTogether(rig: Rig, gateway: string, peer: string, samples: number) {
  const gate = createGate()
  const each = Math.ceil(samples / lanes)
  const numbers = Array.from({ length: lanes }, (_, n) => n)
  const graphile = rig.peer('graphile.mjs', { databaseUrl: peer, mode: 'wake' })
  await graphile.ready
  const own = await Promise.all(numbers.map((n) => gatewayLane(rig, gateway, `wake${n}`)))
  const floor = await Promise.all(numbers.map((n) => rawLane(rig, `floor${n}`)))
  const peers: Lane[] = [
    {
      sample: async () => Number(await graphile.ask('go')),
      async close() {
        await graphile.stop()
      },
    },
  ]
  const all = async (some: readonly Lane[]) =>
    summarize((await Promise.all(some.map((lane) => run(lane, each, gate)))).flat())
  const summaries = await Promise.all([all(own), all(floor), all(peers)])
  return { own: summaries[0], floor: summaries[1], peer: summaries[2] }
}

function part(what: string, suffix: string, withWriter: boolean): Part {
  return {
    what,
    async measure(rig, { repeats, quick }) {
      installPeers()
      const gateway = await rig.gateway()
      const writer = await rig.connect()
      await writer.query('create table if not exists bench_other (n integer)')
      if (withWriter) await writer.query('begin; insert into bench_other values (1)')
      const peer = await rig.database('peer', 'empty')
      const { together } = await takeTurns(repeats, {
        together: () => measureTogether(rig, gateway.url, peer, quick ? 30 : 105),
      })
      const of = (who: 'own' | 'floor' | 'peer', at: keyof Summary) => pick(together, (one) => one[who][at])
      const row = (at: 'p50' | 'p99', limit: number): Row =>
        ratio(
          { target: 'P1', what: `wake ${at}${suffix}` },
          of('own', at),
          'ms',
          { ...of('floor', at), what: 'raw LISTEN + claim' },
          { atMost: limit },
        )
      const peerRow = ratio(
        { target: 'P1', what: `wake p50${suffix}` },
        of('own', 'p50'),
        'ms',
        { ...of('peer', 'p50'), what: 'graphile-worker, in process' },
        { atMost: 1 },
      )
      return [row('p50', 1.25), row('p99', 1.5), peerRow]
    },
  }
}

export const p1: Target = {
  id: 'P1',
  title: 'wake: publish sent to the job in hand, idle',
  parts: [part('idle', '', false), part('beside an unrelated open writer', ', unrelated writer open', true)],
}
