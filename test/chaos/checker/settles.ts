import { grouped } from './facts.ts'
import type { Claim, Facts, Job, Of } from './facts.ts'
import type { Accuse, Count } from './judge.ts'

/** I5: a stale lease changes nothing and says 409; a live one is heard; the same settle gets the same answer. */
export function judgeSettles(facts: Facts, accuse: Accuse, count: Count): void {
  const answers = new Map(facts.of('settled').map((one) => [one.call, one]))
  const calls = facts.of('settle').map((asked): Call => ({ asked, answer: answers.get(asked.call) }))
  for (const [id, ofJob] of grouped(calls, ({ asked }) => asked.id)) {
    const job = facts.jobs.get(id)
    if (job === undefined) {
      if (ofJob.some(({ answer }) => answer?.status === 200))
        accuse('I5', 'a job that is not there was settled', id)
      continue
    }
    for (const call of ofJob) {
      count(`settles answered ${call.answer?.status ?? 'not at all'}`)
      if (call.answer?.status === 200) judgeApplied(job, call, accuse)
      if (call.answer?.status === 409) judgeRefused(job, call, accuse)
    }
    for (const ofLease of grouped(ofJob, ({ asked }) => asked.lease ?? '').values()) {
      judgeLease(id, ofLease, accuse)
    }
  }
}

type Call = { readonly asked: Of<'settle'>; readonly answer: Of<'settled'> | undefined }

const outcomes = { fail: 'failed', release: 'released' } as const

function judgeApplied({ final, changes }: Job, { asked: { verb, lease, id } }: Call, accuse: Accuse): void {
  if (verb === 'heartbeat') return
  const applied =
    verb === 'complete'
      ? final.state === 'succeeded' &&
        final.settled === 'complete' &&
        (lease === null || final.lease === lease)
      : // The log keeps the last hundred entries.
        [...final.log, ...changes].some((one) => one.lease === lease && one.outcome === outcomes[verb])
  if (!applied) accuse('I5', `${verb} was answered 200, but did not end the job's hold`, id)
}

/** Only what has been claimed again or settled may be refused: a lease that merely ended still counts. */
function judgeRefused(
  { claims, changes }: Job,
  { asked: { lease, id, verb }, answer }: Call,
  accuse: Accuse,
): void {
  if (lease === null) return
  const claim = claims.find((one) => one.lease === lease)
  if (claim === undefined) return
  const next = claims[claims.indexOf(claim) + 1]
  // Its end can be the job's: attempts that are used up.
  const gone = changes.find((one) => one.op === 'DELETE' && one.at >= claim.at)
  const staleFrom = Math.min(
    isOver(claim) ? claim.endAt : Infinity,
    next?.at ?? Infinity,
    gone?.at ?? Infinity,
  )
  if (staleFrom > (answer?.at ?? 0)) accuse('I5', `${verb} was answered 409 while its lease counted`, id)
}

function isOver({ end }: Claim): boolean {
  return end !== undefined && end !== 'lost' && end !== 'in doubt' && end !== 'not accepted'
}

/** All calls with one lease. */
function judgeLease(id: string, calls: readonly Call[], accuse: Accuse): void {
  const settles = calls.filter(({ asked }) => asked.verb !== 'heartbeat')
  const applied = settles.filter(({ answer }) => answer?.status === 200)
  const first = applied.toSorted((a, b) => (a.answer?.at ?? 0) - (b.answer?.at ?? 0))[0]
  if (first?.answer === undefined) return
  for (const { asked, answer } of calls) {
    if (asked.at <= first.answer.at) continue
    const same = asked.verb === first.asked.verb
    if (!same && answer?.status === 200) {
      accuse('I5', `after ${first.asked.verb} the same lease was good for ${asked.verb}`, id)
    }
    if (same && asked.verb !== 'release' && answer?.status === 409) {
      accuse('I5', `${asked.verb} was answered 200, and 409 when it was said again`, id)
    }
  }
}
