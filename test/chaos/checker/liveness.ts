import { grouped } from './facts.ts'
import type { Facts, Job, Pull } from './facts.ts'
import type { Accuse, Count } from './judge.ts'
import { historyRules } from './margins.ts'

/** I3, I11, and that every job has ended, as it had to and with its spec unchanged. */
export function judgeLiveness(facts: Facts, accuse: Accuse, count: Count): void {
  judgePublishes(facts, accuse, count)
  const verbs = grouped(facts.of('settle'), ({ id }) => id)
  const decisions = grouped(facts.of('person'), ({ id }) => id)
  const pulls = grouped(
    [...facts.pulls.values()].filter((pull) => isFit(facts, pull)),
    ({ asked }) => asked.topic,
  )
  for (const [id, job] of facts.jobs) {
    const { state } = job.final
    count(`jobs ${state}`)
    if (['scheduled', 'ready', 'offered', 'running'].includes(state)) {
      accuse('I3', `still ${state} in the end`, id)
    }
    const told = (verbs.get(id) ?? []).map(({ verb, lease }) => ({ verb, lease }))
    const decided = (decisions.get(id) ?? []).map(({ verb }) => verb)
    if (!isExplained(job, told, decided)) accuse('jobs', `${state}, which nothing that happened explains`, id)
    if (job.claims.some(({ end }) => end === 'retried') && !decided.includes('retry')) {
      accuse('jobs', 'started over, though nobody had asked for it', id)
    }
    for (const { answers } of job.claims) {
      for (const { answer, whole } of answers) {
        const got = answer.jobs.find((one) => one.id === id)
        if (!whole || got?.key !== job.final.key) accuse('answers', 'its spec is not as it was published', id)
      }
    }
    judgeWaits(facts, job, pulls.get(job.published?.topic ?? '') ?? [], accuse, count)
  }
}

/** I11: what was committed is there, once; of what was rolled back nothing is. */
function judgePublishes(facts: Facts, accuse: Accuse, count: Count): void {
  const byKey = grouped(facts.jobs.values(), ({ final }) => final.key)
  for (const { key, outcome, id } of facts.of('publish')) {
    count(`publishes ${outcome}`)
    const own = byKey.get(key) ?? []
    // With a dedupe key the id may be that of an earlier job.
    if (outcome === 'committed' && (id === null || !facts.jobs.has(id))) {
      accuse('I11', `${key} was committed, and is not there`)
    }
    if (outcome === 'rolled back' && own.length > 0)
      accuse('I11', `${key} was rolled back, and is there`, id ?? '')
    if (own.length > 1) accuse('I11', `${key} is there ${own.length} times`)
  }
}

function isExplained(
  { final, claims, published }: Job,
  told: readonly { readonly verb: string; readonly lease: string | null }[],
  decided: readonly string[],
): boolean {
  const { state, lease, onLost, attempts, maxAttempts } = final
  const last = claims.at(-1)
  const gone = last?.end === 'lost' || last?.end === 'in doubt'
  switch (state) {
    case 'succeeded':
      return told.some((one) => one.verb === 'complete' && (one.lease === lease || one.lease === null))
    case 'failed':
      return (
        told.some((one) => one.verb === 'fail' && one.lease === last?.lease) ||
        last?.end === 'not accepted' ||
        (gone && (onLost === 'fail' || attempts >= maxAttempts))
      )
    case 'cancelled':
      return decided.includes('cancel')
    case 'expired':
      return published?.expires === true
    case 'orphaned':
      return onLost === 'orphan' && gone
    case 'delivered':
      return last?.ack === 'auto'
    default:
      return true
  }
}

/** Pulls that reached their gateway, as far as one can know, and whose executors would have taken a job. */
function isFit(facts: Facts, { asked }: Pull): boolean {
  return asked.reads && facts.brokenness(asked.conn).every(({ what }) => what === 'fin' || what === 'rst')
}

/** I3: while a pull waits on a gateway that nothing ails, no job of its topic stays ready for longer than the backstop. */
function judgeWaits(facts: Facts, job: Job, pulls: readonly Pull[], accuse: Accuse, count: Count): void {
  for (const [from, until] of readyTimes(job)) {
    for (const pull of pulls) {
      const { asked, answer, broken } = pull
      const start = Math.max(from, asked.at)
      const end = Math.min(until, answer?.firstByteAt ?? broken?.firstByteAt ?? pull.endAt)
      if (end <= start) continue
      count('waits of a ready job beside a parked pull')
      const ms = quietStretch(facts, pull, start, end)
      if (ms <= historyRules.lateMs) continue
      accuse(
        'I3',
        `stayed ready for ${Math.round(ms)} ms in peace while ${asked.conn} waited at ${asked.gateway}`,
        job.final.id,
      )
      return
    }
  }
}

/** The longest part of the time given in which nothing ailed the pull's gateway, nor its executor. */
function quietStretch(facts: Facts, { asked }: Pull, start: number, end: number): number {
  if (end - start <= historyRules.lateMs) return 0
  let [from, longest] = [start, 0]
  for (const { at, until } of facts.troublesOf(asked.gateway, asked.process)) {
    if (until < start) continue
    longest = Math.max(longest, Math.min(at, end) - from)
    from = Math.max(from, until)
  }
  return Math.max(longest, end - from)
}

/** From when until when the job could be claimed. */
function readyTimes({ changes, published }: Job): [from: number, until: number][] {
  const times: [number, number][] = []
  for (const [index, { state, at, op }] of changes.entries()) {
    if (state !== 'ready' || op === 'DELETE' || changes[index - 1]?.state === 'ready') continue
    // A publisher may have kept its transaction open, or nobody knows whether it committed.
    const seenAt = index > 0 ? at : published?.outcome === 'committed' ? published.at : undefined
    if (seenAt === undefined) continue
    times.push([
      Math.max(at, seenAt),
      changes.slice(index + 1).find((one) => one.state !== 'ready' || one.op === 'DELETE')?.at ?? Infinity,
    ])
  }
  return times
}
