import type pg from 'pg'
import { subscribeEach } from '../lib/control.ts'
import type { Gateway, Load } from '../lib/children.ts'
import type { Received } from '../lib/flow.ts'
import type { Rig } from '../lib/rig.ts'
import { figure, pick, ratio, takeTurns } from '../lib/rows.ts'
import { summarize } from '../lib/stats.ts'
import type { Summary } from '../lib/stats.ts'
import { now, sleep } from '../lib/time.ts'
import { measureUsage, residentBytes } from '../lib/watch.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Part, Scale, Target } from './target.ts'

const parked = 15_000
/** A process may have 20,000 files open here, and one generator would be busy with the sockets of all. */
const generators = 2
const topics = Array.from({ length: 100 }, (_, n) => `parked${n}`)
const environment = { PULLGATE_MAX_PARKED: '20000', PULLGATE_MAX_WAIT_SECONDS: '3600' }

type Fleet = { stop(): Promise<(Received & { readonly empty: number })[]> }

async function parkedAt(url: string): Promise<number> {
  const wire = openWire(url)
  const answer = await wire.send('GET', '/metrics')
  wire.close()
  return Number(/^pullgate_pulls_parked (\d+)/m.exec(answer.text)?.[1])
}

async function park(
  rig: Rig,
  gateway: Gateway,
  subscriptions: readonly string[],
  waits: { readonly waitSeconds: number; readonly spread: boolean },
): Promise<Fleet> {
  const loads = Array.from({ length: generators }, (): Load<Received & { empty: number }> =>
    rig.load('parked.ts', {
      ...{ gateway: gateway.url, subscriptions, connections: parked / generators, ...waits },
      ...{ perSecond: 2_000 / generators, secondsMax: 180 },
    }),
  )
  await Promise.all(loads.map(({ ready }) => ready))
  // A few may be between two pulls.
  const enough = parked * (waits.spread ? 0.98 : 1)
  for (let tries = 0; (await parkedAt(gateway.url)) < enough; tries += 1) {
    if (tries === 60) throw new Error(`only ${await parkedAt(gateway.url)} pulls are parked`)
    await sleep(500)
  }
  return { stop: () => Promise.all(loads.map((load) => load.stop())) }
}

/** One pull parked at a gateway of its own: what a wake costs where nobody else waits. */
async function wakeLone(
  publisher: pg.Client,
  wire: ReturnType<typeof openWire>,
  id: string,
): Promise<number> {
  const pull = wire.send('PATCH', `/subscriptions/${id}`)
  await sleep(gapMs())
  const sentAt = now()
  await publisher.query({ name: 'lone', text: `select pullgate.publish('lone', '{"n": 0}')` })
  const answer = await pull
  const job = jsonOf(answer) as { id: string; lease: string }
  jsonOf(await wire.send('POST', `/jobs/${job.id}/complete`, `{"lease":"${job.lease}"}`))
  return answer.at - sentAt
}

const gapMs = () => 30 + 60 * Math.random()

/** Turn by turn: a wake of the lone pull at the other gateway, a wake of one of the many. */
async function wakes(rig: Rig, samples: number, fleet: Fleet): Promise<{ one: Summary; many: Summary }> {
  const other = await rig.gateway(environment)
  const publisher = await rig.connect()
  const wire = openWire(other.url)
  const [lone = ''] = await subscribeEach(publisher, ['lone'])
  const one: number[] = []
  const sentAt: number[] = []
  for (let n = 0; n < samples; n += 1) {
    one.push(await wakeLone(publisher, wire, lone))
    await sleep(gapMs())
    sentAt.push(now())
    const topic = topics[Math.floor(Math.random() * topics.length)]
    const text = 'select pullgate.publish($1, $2::text)'
    await publisher.query({ name: 'many', text, values: [topic, `{"n": ${n}}`] })
  }
  await sleep(300)
  wire.close()
  await other.stop()
  await publisher.end()
  const inHandAt = new Array<number>(samples).fill(Infinity)
  for (const { ns, at } of await fleet.stop()) ns.forEach((n, i) => (inHandAt[n] = at[i] ?? Infinity))
  return { one: summarize(one), many: summarize(sentAt.map((at, n) => (inHandAt[n] ?? Infinity) - at)) }
}

async function measureOnce(rig: Rig, quick: boolean) {
  await rig.reset()
  const admin = await rig.connect()
  const observer = await rig.observer()
  const subscriptions = await subscribeEach(admin, topics)
  await admin.end()
  const gateway = await rig.gateway(environment)
  await sleep(1_000)
  const before = residentBytes(gateway.pid)
  const silent = await park(rig, gateway, subscriptions, { waitSeconds: 3_600, spread: false })
  await sleep(2_000)
  const bytesEach = (residentBytes(gateway.pid) - before) / parked
  const idle = await measureUsage(observer, gateway.pid, () => sleep(quick ? 6_000 : 12_000))
  const woken = await wakes(rig, quick ? 50 : 150, silent)
  const pulling = await park(rig, gateway, subscriptions, { waitSeconds: 25, spread: true })
  const repulls = await measureUsage(observer, gateway.pid, () => sleep(quick ? 5_000 : 12_000))
  await pulling.stop()
  await gateway.stop()
  await observer.end()
  return { kilobytesEach: bytesEach / 1024, idle, repulls, ...woken }
}

const part: Part = {
  what: `${parked} pulls on ${topics.length} topics`,
  async measure(rig: Rig, { repeats, quick }: Scale) {
    const { run } = await takeTurns(repeats, { run: () => measureOnce(rig, quick) })
    const head = (what: string) => ({ target: 'P5', what })
    const cpu = (usage: 'idle' | 'repulls') =>
      pick(run, (one) => one[usage].gatewayPercent + one[usage].backendsPercent)
    const wake = (at: 'p50' | 'p99') =>
      ratio(
        head(`wake ${at} beside 15,000 parked`),
        ...([
          pick(run, ({ many }) => many[at]),
          'ms',
          { ...pick(run, ({ one }) => one[at]), what: '1 parked' },
          { atMost: 1.5 },
        ] as const),
      )
    return [
      figure(
        head('15,000 parked: resident memory each'),
        pick(run, (one) => one.kilobytesEach),
        'KiB',
        { atMost: 10 },
      ),
      figure(
        head('statements while nothing expires'),
        pick(run, ({ idle }) => idle.statementsPerSecond),
        'per s',
        { atMost: 3 },
      ),
      figure(head('of a core, idle: gateway and its backends'), cpu('idle'), '%', { atMost: 2 }),
      figure(head('of a core, 25 s waits, 600 re-pulls/s: gateway and its backends'), cpu('repulls'), '%', {
        atMost: 10,
      }),
      wake('p50'),
      wake('p99'),
      figure(
        head('database connections, idle'),
        pick(run, ({ idle }) => idle.connections),
        '',
        { atMost: 2 },
      ),
    ]
  },
}

export const p5: Target = { id: 'P5', title: 'parked pulls', parts: [part] }
