import { existsSync, readdirSync, readlinkSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { History } from './history.ts'
import { poolMax } from './lib/gateway.ts'
import type { ChaosGateway } from './lib/gateway.ts'
import type { ChaosPostgres } from './lib/postgres.ts'
import { openWire } from './lib/wire.ts'

/** When the fire has stopped: what a gateway holds while many pulls are parked, and once they have left. */

type Options = {
  readonly postgres: ChaosPostgres
  readonly gateways: readonly ChaosGateway[]
  readonly history: History
  readonly subscription: string
}

const pulls = 30
const settleMs = 4_000

export async function sampleGateways(options: Options): Promise<void> {
  // One that has ended meanwhile says nothing; its end is in the history.
  await Promise.allSettled(options.gateways.map((gateway) => sampleGateway(gateway, options)))
}

async function sampleGateway(
  gateway: ChaosGateway,
  { postgres, history, subscription }: Options,
): Promise<void> {
  const port = Number(new URL(gateway.url).port)
  const before = await metric(gateway, 'pullgate_pulls_parked')
  const wires = Array.from({ length: pulls }, () =>
    openWire({
      ...{ port, preamble: null, reading: 'normal' },
      onClosed: () => undefined,
      onUnasked: () => undefined,
    }),
  )
  for (const wire of wires) void wire.request('PATCH', `/subscriptions/${subscription}?wait=50`)
  const sample = async (when: 'parked' | 'idle', parkedMetric: number) => {
    const [row] = await postgres.query<{ connections: number; transactions: number }>(
      `select count(*)::integer as connections,
          (count(*) filter (where state like 'idle in transaction%'))::integer as transactions
        from pg_stat_activity where application_name = $1`,
      [gateway.application],
    )
    history.write({
      ...{ kind: 'sample', gateway: gateway.name, when, pulls: when === 'parked' ? pulls : 0, parkedMetric },
      connections: row?.connections ?? 0,
      // The pool, its listener, and what holds its name.
      connectionsMax: poolMax + 2,
      transactions: row?.transactions ?? 0,
      sockets: socketsOf(gateway.pid),
      timers: await metric(gateway, 'pullgate_nodejs_active_resources', 'type="Timeout"'),
      checkedOut: await reached(checkedOut, 0),
    })
  }
  const parked = () => metric(gateway, 'pullgate_pulls_parked')
  // Upkeep takes one now and then.
  const checkedOut = () => metric(gateway, 'pullgate_db_pool_connections', 'state="active"')
  await sample('parked', await reached(parked, before + pulls))
  for (const wire of wires) wire.end('fin')
  await sample('idle', await reached(parked, 0))
}

/** The number once it is as expected, or else what it was when it had had its time. */
async function reached(number: () => Promise<number>, expected: number): Promise<number> {
  const until = Date.now() + settleMs
  for (;;) {
    const found = await number()
    if (found === expected || Date.now() > until) return found
    await delay(50)
  }
}

async function metric(gateway: ChaosGateway, name: string, label = ''): Promise<number> {
  const response = await fetch(`${gateway.url}/metrics`, { headers: { Connection: 'close' } })
  const text = await response.text()
  const line = text.split('\n').find((one) => one.startsWith(name) && one.includes(label))
  return Number(line?.split(' ').at(-1) ?? 0)
}

/** Sockets that the process has open; 0 where the system does not say. */
function socketsOf(pid: number): number {
  const folder = `/proc/${pid}/fd`
  if (!existsSync(folder)) return 0
  return readdirSync(folder).filter((name) => {
    try {
      return readlinkSync(`${folder}/${name}`).startsWith('socket:')
    } catch {
      return false
    }
  }).length
}
