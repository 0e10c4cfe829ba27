import { now, rounded, sleep } from '../lib/time.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Wire } from '../lib/wire.ts'
import { finish, readInput, sayReady, stop } from './process.ts'

/**
 * Many executors that wait: each connection pulls, completes what it gets, and pulls again. They connect and pull
 * `perSecond` at a time. With `spread`, the first wait of connection i is 1 to waitSeconds, so that from the start as
 * many waits end in each second.
 */
const input = readInput() as {
  readonly gateway: string
  readonly subscriptions: readonly string[]
  readonly connections: number
  readonly waitSeconds: number
  readonly spread: boolean
  readonly perSecond: number
  readonly secondsMax: number
}

const received = { ns: [] as number[], at: [] as number[], empty: 0 }

async function wait(wire: Wire, i: number): Promise<void> {
  const path = `/subscriptions/${input.subscriptions[i % input.subscriptions.length] ?? ''}`
  let seconds = input.spread ? 1 + (i % input.waitSeconds) : input.waitSeconds
  while (!stop.asked) {
    const answer = await wire.send('PATCH', `${path}?wait=${seconds}`)
    seconds = input.waitSeconds
    if (answer.status === 204) {
      received.empty += 1
      continue
    }
    const { id, lease, jobSpec } = jsonOf(answer) as { id: string; lease: string; jobSpec: { n: number } }
    received.ns.push(jobSpec.n)
    received.at.push(rounded(answer.at))
    jsonOf(await wire.send('POST', `/jobs/${id}/complete`, `{"lease":"${lease}"}`))
  }
}

const wires: Wire[] = []
const pauseMs = 20
const perPause = Math.ceil((input.perSecond * pauseMs) / 1000)
for (let i = 0; i < input.connections && !stop.asked; i += 1) {
  const wire = openWire(input.gateway)
  wires.push(wire)
  void wait(wire, i)
  if (i % perPause === perPause - 1) await sleep(pauseMs)
}
sayReady()
const until = now() + input.secondsMax * 1000
while (!stop.asked && now() < until) await sleep(50)
for (const wire of wires) wire.close()
finish(received)
