import { now, rounded, sleep } from '../lib/time.ts'
import { jsonOf, openWire } from '../lib/wire.ts'
import type { Wire } from '../lib/wire.ts'
import { finish, onAsked, readInput, sayReady, stop } from './process.ts'

/**
 * Many executors that wait: each connection pulls, completes what it gets, and pulls again. The bench asks for so
 * many more at a time. With `spread`, the first wait of connection i is 1 to waitSeconds, so that from the start as
 * many waits end in each second.
 */
const input = readInput() as {
  readonly gateway: string
  readonly subscriptions: readonly string[]
  readonly waitSeconds: number
  readonly spread: boolean
  readonly secondsMax: number
}

const received = { ns: [] as number[], at: [] as number[], refused: 0 }

async function wait(wire: Wire, i: number): Promise<void> {
  const path = `/subscriptions/${input.subscriptions[i % input.subscriptions.length] ?? ''}`
  let seconds = input.spread ? 1 + (i % input.waitSeconds) : input.waitSeconds
  while (!stop.asked) {
    const answer = await wire.send('PATCH', `${path}?wait=${seconds}`)
    seconds = input.waitSeconds
    if (answer.status === 204) continue
    if (answer.status >= 500) {
      received.refused += 1
      await sleep(1_000)
      continue
    }
    const { id, lease, jobSpec } = jsonOf(answer) as { id: string; lease: string; jobSpec: { n: number } }
    received.ns.push(jobSpec.n)
    received.at.push(rounded(answer.at))
    jsonOf(await wire.send('POST', `/jobs/${id}/complete`, `{"lease":"${lease}"}`))
  }
}

const wires: Wire[] = []
onAsked((count) => {
  for (let n = 0; n < Number(count); n += 1) {
    const wire = openWire(input.gateway)
    void wait(wire, wires.push(wire))
  }
  return String(wires.length)
})
sayReady()
const until = now() + input.secondsMax * 1000
while (!stop.asked && now() < until) await sleep(50)
for (const wire of wires) wire.close()
finish(received)
