import { grouped } from './facts.ts'
import type { Facts, Pull } from './facts.ts'
import type { Accuse, Count } from './judge.ts'
import { historyRules } from './margins.ts'

/** What is said of gateways rather than of jobs: I2, I4, I9, I10, and that none crashes, errs or leaks. */
export function judgeGateways(facts: Facts, accuse: Accuse, count: Count): void {
  judgeDrains(facts, accuse, count)
  judgeEnds(facts, accuse, count)
  judgeSamples(facts, accuse)
  judgeOrder(facts, accuse, count)
  for (const { conn, bytes } of facts.of('unasked'))
    accuse('I2', `${conn} got ${bytes} bytes that it had not asked for`)
  for (const { gateway, what } of facts.of('mistake')) accuse('answers', `${gateway}: ${what}`)
  for (const { gateway, line, at } of facts.of('log')) {
    // What cannot be reported to a database that is away is said, and is no mistake.
    const reported = /stop step failed|delivery report failed/.test(line)
    if (!reported || !facts.troubled(gateway, at - 15_000, at)) accuse('process', `${gateway} logged ${line}`)
  }
  if (facts.record.sessions > 0) {
    accuse(
      'process',
      `${facts.record.sessions} sessions of gateways were left in Postgres when all had ended`,
    )
  }
  count('pulls', facts.pulls.size)
}

/** I10: no claim begins after the drain starts. */
function judgeDrains(facts: Facts, accuse: Accuse, count: Count): void {
  const since = new Map(facts.of('draining').map((one) => [one.name, one.at]))
  count('drains', since.size)
  for (const [id, { claims }] of facts.jobs) {
    for (const { application, at, gateway } of claims) {
      const from = since.get(application)
      if (from === undefined || at <= from + historyRules.drainMs) continue
      if (!facts.troubled(gateway, from - 1_000, at, ['gateway drained'])) {
        accuse('I10', `claimed by ${application} ${Math.round(at - from)} ms after its drain began`, id)
      }
    }
  }
}

function judgeEnds(facts: Facts, accuse: Accuse, count: Count): void {
  for (const { name, gateway, asked, exit, at } of facts.of('ended')) {
    count(`gateways ended (${asked})`)
    if (asked === 'no') accuse('process', `${name} ended by itself: ${exit}`)
    if (asked === 'stop' && exit !== 0 && !facts.troubled(gateway, at - 15_000, at, ['gateway drained'])) {
      accuse('process', `${name} was drained in peace, and its exit was ${exit}`)
    }
  }
}

const timersMax = 60
// Listening, the samples themselves, and the pipes of its output.
const socketsOfItsOwn = 8

/** I4: a parked pull holds no connection and no transaction; and nothing is kept of those that have left. */
function judgeSamples(facts: Facts, accuse: Accuse): void {
  for (const { gateway, when, pulls, ...found } of facts.of('sample')) {
    const { parkedMetric, connections, connectionsMax, transactions, sockets, timers, checkedOut } = found
    if (when === 'parked' && parkedMetric < pulls) {
      accuse('process', `${gateway} says ${parkedMetric} pulls are parked, of ${pulls}`)
    }
    if (connections > connectionsMax) accuse('I4', `${gateway} has ${connections} connections to Postgres`)
    if (transactions > 0) accuse('I4', `${gateway} keeps ${transactions} transactions open`)
    if (when === 'parked') continue
    if (parkedMetric > 0) accuse('process', `${gateway} keeps ${parkedMetric} pulls parked that have left`)
    if (sockets > connectionsMax + socketsOfItsOwn)
      accuse('process', `${gateway} keeps ${sockets} sockets open`)
    if (checkedOut > 0) accuse('process', `${gateway} keeps ${checkedOut} connections of its pool in use`)
    if (timers > timersMax) accuse('process', `${gateway} keeps ${timers} timers`)
  }
}

/** I9: of two pulls of a subscription at a gateway, the one that came first is not still waiting when the other is served. */
function judgeOrder(facts: Facts, accuse: Accuse, count: Count): void {
  const single = [...facts.pulls.values()].filter(
    ({ asked, answer }) =>
      // What is given again to a key is had at once.
      asked.max === 1 &&
      asked.idempotencyKey === undefined &&
      answer !== undefined &&
      facts.brokenness(asked.conn).length === 0,
  )
  const queues = grouped(single, ({ asked }) => `${asked.gateway} ${asked.subscription}`)
  for (const queue of queues.values()) {
    const served = queue.filter(({ answer }) => answer?.status === 200)
    for (const empty of queue)
      if (empty.answer?.status === 204) judgeOvertaking(facts, empty, served, accuse, count)
  }
}

function judgeOvertaking(
  facts: Facts,
  empty: Pull,
  served: readonly Pull[],
  accuse: Accuse,
  count: Count,
): void {
  for (const later of served) {
    const cameLater = later.asked.at >= empty.asked.at + historyRules.orderMs
    const waitedOn = empty.endAt >= later.endAt + historyRules.orderMs
    if (!cameLater || !waitedOn) continue
    count('pulls of one queue compared')
    const { gateway, process } = empty.asked
    if (facts.troubled(gateway, empty.asked.at, empty.endAt)) continue
    if (
      facts.troubled(process, empty.asked.at, empty.endAt) ||
      facts.troubled(later.asked.process, later.asked.at, later.endAt)
    )
      continue
    accuse(
      'I9',
      `at ${gateway} ${later.asked.conn} was served before ${empty.asked.conn}, which had come before`,
    )
  }
}
