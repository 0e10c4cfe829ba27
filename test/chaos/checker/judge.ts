import type { Entry } from '../history.ts'
import type { DatabaseRecord } from '../lib/record.ts'
import { judgeDeliveries } from './deliveries.ts'
import { joinFacts } from './facts.ts'
import type { Facts } from './facts.ts'
import { judgeGateways } from './gateways.ts'
import { judgeKeys } from './keys.ts'
import { judgeLeases } from './leases.ts'
import { judgeLiveness } from './liveness.ts'
import { judgeSettles } from './settles.ts'

/** Whether what happened was allowed: from the histories and the database's record alone. */

export type Violation = {
  /** An invariant, or `answers`, `jobs`, `keys`, `process`, `twice`. */
  readonly rule: string
  readonly what: string
  readonly job: string | null
  readonly round: number | null
}

export type Verdict = {
  readonly violations: readonly Violation[]
  readonly counts: Readonly<Record<string, number>>
}

/** `job`: its id, where the violation is about one. */
export type Accuse = (rule: string, what: string, job?: string) => void
export type Count = (what: string, by?: number) => void

export function judge(entries: readonly Entry[], record: DatabaseRecord): Verdict {
  const facts = joinFacts(entries, record)
  const violations: Violation[] = []
  const counts: Record<string, number> = {}
  const accuse: Accuse = (rule, what, job) => {
    const round = job === undefined ? undefined : facts.jobs.get(job)?.published?.round
    violations.push({ rule, what, job: job ?? null, round: round ?? null })
  }
  const count: Count = (what, by = 1) => {
    counts[what] = (counts[what] ?? 0) + by
  }
  for (const rule of [judgeLeases, judgeSettles, judgeDeliveries, judgeLiveness, judgeKeys, judgeGateways]) {
    rule(facts, accuse, count)
  }
  return { violations, counts }
}

/** All that is known of one job, in order, for whoever has to find out what went wrong. */
export function historyOf(entries: readonly Entry[], record: DatabaseRecord, id: string): string[] {
  const facts = joinFacts(entries, record)
  const job = facts.jobs.get(id)
  const key = job?.final.key
  const pulls = new Set(
    [...facts.pulls.values()]
      .filter(({ answer, broken }) => isOf(id, key, answer, broken))
      .map(({ asked }) => asked.pull),
  )
  const conns = new Set([...pulls].map((pull) => facts.pulls.get(pull)?.asked.conn))
  const calls = new Set(facts.of('settle').flatMap((one) => (one.id === id ? [one.call] : [])))
  const own = entries.filter(
    (entry) =>
      ('id' in entry && entry.id === id) ||
      ('key' in entry && entry.key === key) ||
      ('pull' in entry && pulls.has(entry.pull)) ||
      ('conn' in entry && conns.has(entry.conn)) ||
      ('call' in entry && calls.has(entry.call)),
  )
  const lines = [
    ...own.map((entry) => ({ at: entry.at, text: JSON.stringify(entry) })),
    ...(job?.changes ?? []).map((change) => ({ at: change.at, text: `database ${JSON.stringify(change)}` })),
  ].toSorted((a, b) => a.at - b.at)
  const from = lines[0]?.at ?? 0
  const until = lines.at(-1)?.at ?? 0
  const around = entries
    .filter((one) => one.kind === 'trouble' && one.at <= until && one.until >= from)
    .map((one) => `meanwhile ${JSON.stringify(one)}`)
  return [...lines.map(({ text }) => text), `in the end ${JSON.stringify(job?.final)}`, ...around]
}

function isOf(
  id: string,
  key: string | undefined,
  answer: Facts['pulls'] extends ReadonlyMap<string, infer P>
    ? P extends { answer: infer A }
      ? A
      : never
    : never,
  broken: { readonly keys: readonly string[] } | undefined,
): boolean {
  return (
    answer?.jobs.some((one) => one.id === id) === true ||
    (key !== undefined && broken?.keys.includes(key) === true)
  )
}
