import { setTimeout as delay } from 'node:timers/promises'
import { openHistory } from './history.ts'
import { openWire } from './lib/wire.ts'
import type { Wire } from './lib/wire.ts'
import { serveOrders } from './orders.ts'
import type { ExecuteOrder } from './orders.ts'
import { createPulls } from './pulls.ts'
import type { Pulled } from './pulls.ts'
import { createWorker } from './work.ts'

/** A process of executors: `executors.ts NAME LIFE HISTORY_FILE`. */

const [, , processName = '', life = '', historyFile = ''] = process.argv
// A process that was killed may have used the numbers of its pulls and calls.
const prefix = `${processName}.${life}`
const history = openHistory(historyFile)
const worker = createWorker(history, prefix)
const pulls = createPulls(history, processName, prefix)
const pulling = new Set<() => void>()

const gatewayName = (index: number) => `g${index}`

function open(order: ExecuteOrder, gateway: number, conn: string, first: boolean): Wire {
  const { plan, ports } = order
  return openWire({
    port: ports[gateway] ?? 0,
    preamble: { conn, link: first ? plan.link : null },
    reading: plan.reading,
    onClosed: (by) => history.write({ kind: 'closed', conn, by }),
    onUnasked: (bytes) => history.write({ kind: 'unasked', conn, bytes }),
  })
}

async function execute(order: ExecuteOrder): Promise<void> {
  const { plan } = order
  await delay(plan.startMs)
  const subscription = order.subscription ?? (await worker.subscribe(order))
  if (subscription === undefined) return
  const leaveAt = Date.now() + plan.stayMs
  let left = false
  let wire: Wire | undefined
  const leave = () => {
    left = true
    wire?.end('fin')
  }
  pulling.add(leave)
  const timer = setTimeout(leave, plan.stayMs)
  let conn = ''
  let got = 0
  let gateway = plan.gateway
  let keys = 0
  let unanswered = false
  const left_ = () => left
  for (let connections = 0; !left_();) {
    const first = connections === 0
    if (wire?.open !== true) {
      if (!first && plan.leavesAfter !== null && !(plan.keyed && unanswered)) break
      conn = `${prefix}/${plan.name}/${connections}`
      connections += 1
      wire = open(order, gateway, conn, first)
      if (first) planBreak(order, wire)
    }
    const pulled: Pulled = await pulls.pull(wire, {
      order,
      subscription,
      conn,
      gateway: gatewayName(gateway),
      waitSeconds: Math.max(1, Math.ceil((leaveAt - Date.now()) / 1000)),
      settles: plan.piggyback && plan.max !== null ? worker.takeCompletions(plan.name) : [],
      idempotencyKey: plan.keyed ? `${prefix}/${plan.name}/${keys}` : null,
    })
    // Asked for again elsewhere with the same key: it may have been handed a job.
    unanswered = !pulled.answered
    if (unanswered && plan.keyed) gateway = (gateway + 1) % order.ports.length
    else keys += 1
    if (pulled.jobs.length > 0) {
      if (first && plan.break?.when === 'answered') breakLater(wire, plan.break.by, plan.break.afterMs)
      worker.take(order, pulled.jobs)
      got += pulled.jobs.length
      if (got >= (plan.leavesAfter ?? Infinity)) break
    } else if (pulled.pauseMs > 0) await delay(pulled.pauseMs)
  }
  clearTimeout(timer)
  pulling.delete(leave)
  // One that leaves with its job stays connected a while, as far as its plan does not say otherwise.
  if (plan.leavesAfter !== null && wire !== undefined && plan.break?.when !== 'parked') await delay(300)
  wire?.end('fin')
}

function planBreak({ plan }: ExecuteOrder, wire: Wire): void {
  const { by, when, afterMs } = plan.break ?? {}
  if (by === undefined) return
  if (when === 'first byte') {
    wire.onFirstByte(() => (afterMs === 0 ? wire.end(by) : breakLater(wire, by, afterMs ?? 0)))
  }
  if (when === 'parked') breakLater(wire, by, afterMs ?? 0)
}

function breakLater(wire: Wire, by: 'fin' | 'rst', afterMs: number): void {
  setTimeout(() => wire.end(by), afterMs)
}

serveOrders(async (what) => {
  if (what.kind === 'execute') return execute(what)
  for (const leave of [...pulling]) leave()
  await worker.idle()
})
