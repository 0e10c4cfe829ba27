import type pg from 'pg'
import { subscribeEach } from '../lib/control.ts'
import type { Gateway } from '../lib/children.ts'
import type { Received } from '../lib/flow.ts'
import type { Rig } from '../lib/rig.ts'
import { figure, pick, ratio, takeTurns } from '../lib/rows.ts'
import { summarize } from '../lib/stats.ts'
import type { Summary } from '../lib/stats.ts'
import { now, sleep } from '../lib/time.ts'
import { measureUsage, residentBytes } from '../lib/watch.ts'
import type { Usage } from '../lib/watch.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Part, Scale, Target } from './target.ts'

const parked = 15_000
/** What a process takes for its first requests of all is none of theirs: memory is counted from here on. */
const warm = 1_000
/** A process may have 20,000 files open here, and one generator would be busy with the sockets of all. */
const generators = 2
const topics = Array.from({ length: 100 }, (_, n) => `parked${n}`)
const environment = { PULLGATE_MAX_PARKED: '20000', PULLGATE_MAX_WAIT_SECONDS: '3600' }

type Fleet = {
  more(count: number): Promise<unknown>
  stop(): Promise<(Received & { readonly refused: number })[]>
}

async function metric(url: string, name: string): Promise<number> {
  const wire = openWire(url)
  const { text } = await wire.send('GET', '/metrics')
  wire.close()
  const line = text.split('\n').find((one) => one.startsWith(`${name} `))
  return Number(line?.slice(name.length))
}
const parkedAt = (url: string) => metric(url, 'pullgate_pulls_parked')
const emptyAt = (url: string) => metric(url, 'pullgate_pulls_total{outcome="empty"}')

// Less than the gateway's accept queue holds: beyond it the kernel resets connections.
const wave = 500
const parkWithinMs = 90_000

async function awaitParked(gateway: Gateway, enough: number, until: number): Promise<boolean> {
  while ((await parkedAt(gateway.url)) < enough) {
    if (now() > until) return false
    await sleep(20)
  }
  return true
}

async function startFleet(
  rig: Rig,
  gateway: Gateway,
  subscriptions: readonly string[],
  waits: { readonly waitSeconds: number; readonly spread: boolean },
): Promise<Fleet> {
  const loads = Array.from({ length: generators }, () =>
    rig.load<Received & { refused: number }>('parked.ts', {
      ...{ gateway: gateway.url, subscriptions, ...waits, secondsMax: 300 },
    }),
  )
  await Promise.all(loads.map(({ ready }) => ready))
  return {
    more: (count) => Promise.all(loads.map((load) => load.ask(String(count / generators)))),
    stop: () => Promise.all(loads.map((load) => load.stop())),
  }
}

async function park(gateway: Gateway, fleet: Fleet, already: number, upto: number): Promise<void> {
  const until = now() + parkWithinMs
  for (let asked = already + wave; asked <= upto; asked += wave) {
    await fleet.more(wave)
    const enough = asked === upto ? upto : asked - wave / 2
    if (!(await awaitParked(gateway, enough, until))) {
      throw new Error(`fewer than ${enough} pulls are parked after ${parkWithinMs / 1000} s`)
    }
  }
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

async function prepare(rig: Rig) {
  await rig.reset()
  const observer = await rig.observer()
  const admin = await rig.connect()
  const subscriptions = await subscribeEach(admin, topics)
  await admin.end()
  const gateway = await rig.gateway(environment)
  return { observer, subscriptions, gateway }
}

async function measureIdle(rig: Rig, quick: boolean) {
  const { observer, subscriptions, gateway } = await prepare(rig)
  const fleet = await startFleet(rig, gateway, subscriptions, { waitSeconds: 3_600, spread: false })
  await park(gateway, fleet, 0, warm)
  await sleep(1_000)
  const before = residentBytes(gateway.pid)
  await park(gateway, fleet, warm, parked)
  // Backends that have gone idle report what they did within 10 s: what parking cost is not counted as idle.
  await sleep(11_000)
  const bytesEach = (residentBytes(gateway.pid) - before) / (parked - warm)
  const usage = await measureUsage(observer, gateway.pid, () => sleep(quick ? 4_000 : 10_000))
  const woken = await wakes(rig, quick ? 30 : 100, fleet)
  await gateway.stop()
  await observer.end()
  return { kilobytesEach: bytesEach / 1024, usage, ...woken }
}

/** 25 s waits, spread evenly. A gateway that cannot carry them gets them all the same. */
async function measureRepulls(rig: Rig, quick: boolean) {
  const { observer, subscriptions, gateway } = await prepare(rig)
  const fleet = await startFleet(rig, gateway, subscriptions, { waitSeconds: 25, spread: true })
  for (let asked = wave; asked <= parked; asked += wave) {
    await fleet.more(wave)
    await awaitParked(gateway, 0.97 * asked, now() + 500)
  }
  const seconds = quick ? 4 : 10
  const before = await emptyAt(gateway.url)
  const usage = await measureUsage(observer, gateway.pid, () => sleep(seconds * 1000))
  const perSecond = ((await emptyAt(gateway.url)) - before) / seconds
  const short = parked - (await parkedAt(gateway.url))
  const refused = (await fleet.stop()).reduce((sum, one) => sum + one.refused, 0)
  await gateway.stop()
  await observer.end()
  return { usage, short, refused, perSecond }
}

const cpu = ({ gatewayPercent, backendsPercent }: Usage) => gatewayPercent + backendsPercent

const head = (what: string) => ({ target: 'P5', what })

const idle: Part = {
  what: `${parked} pulls on ${topics.length} topics, nothing expires`,
  async measure(rig: Rig, { repeats, quick }: Scale) {
    const { run } = await takeTurns(repeats, { run: () => measureIdle(rig, quick) })
    const wake = (at: 'p50' | 'p99') => {
      const one = { ...pick(run, (measured) => measured.one[at]), what: '1 parked' }
      const many = pick(run, (measured) => measured.many[at])
      return ratio(head(`wake ${at} beside 15,000 parked`), many, 'ms', one, { atMost: 1.5 })
    }
    const each = pick(run, ({ kilobytesEach }) => kilobytesEach)
    const statements = pick(run, ({ usage }) => usage.statementsPerSecond)
    const connections = pick(run, ({ usage }) => usage.connections)
    const used = pick(run, ({ usage }) => cpu(usage))
    return [
      figure(head('15,000 parked: resident memory each'), each, 'KiB', { atMost: 10 }),
      figure(head('idle: transactions committed'), statements, 'per s', { atMost: 3 }),
      figure(head('idle: gateway and its backends, of a core'), used, '%', { atMost: 2 }),
      wake('p50'),
      wake('p99'),
      figure(head('idle: database connections'), connections, 'connections', { atMost: 2 }),
    ]
  },
}

const repulling: Part = {
  what: `${parked} pulls with 25 s waits`,
  async measure(rig: Rig, { repeats, quick }: Scale) {
    const { run } = await takeTurns(repeats, { run: () => measureRepulls(rig, quick) })
    const most = (part: 'short' | 'refused') => Math.max(0, ...run.values.map((measured) => measured[part]))
    const [short, refused] = [most('short'), most('refused')]
    const rates = run.values.map(({ perSecond }) => Math.round(perSecond)).join(', ')
    const what = `25 s waits (${rates} re-pulls/s): gateway and its backends, of a core`
    const carried = short <= 0.05 * parked && refused === 0
    const note = carried ? '' : ` (not carried: ${short} pulls were not parked, ${refused} got 5xx)`
    return [
      figure(
        head(what + note),
        pick(run, ({ usage }) => cpu(usage)),
        '%',
        { atMost: 10 },
      ),
    ]
  },
}

export const p5: Target = { id: 'P5', title: 'parked pulls', parts: [idle, repulling] }
