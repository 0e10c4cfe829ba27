import { historyRules } from './margins.ts'
import type { Claim, Facts, Job, Pull } from './facts.ts'
import { grouped } from './facts.ts'
import type { Accuse, Count } from './judge.ts'

/** I6, I13, and that a job runs again only where that was announced. */
export function judgeDeliveries(facts: Facts, accuse: Accuse, count: Count): void {
  const pullsOf = grouped(facts.pulls.values(), ({ asked }) => asked.subscription)
  for (const [id, job] of facts.jobs) {
    for (const [index, claim] of job.claims.entries()) {
      const pulls = (pullsOf.get(claim.subscription) ?? []).filter(
        ({ asked }) => asked.gateway === claim.gateway && asked.at <= claim.endAt,
      )
      const next = job.claims[index + 1]
      judgeAttempts(id, claim, next, accuse)
      if (next !== undefined) judgeAgain(id, job, claim, accuse)
      if (claim.answers.length > 0) judgeReceived(facts, id, claim, accuse, count)
      else if (claim.parts.length === 0) judgeUnseen(facts, id, job, claim, pulls, accuse, count)
    }
    countRuns(job, count)
  }
}

/** What was given back or released cost nothing; whatever else was handed out did. */
function judgeAttempts(id: string, claim: Claim, next: Claim | undefined, accuse: Accuse): void {
  const { end, attempt, attemptAfter, unaccepted } = claim
  const free = end === 'given back' || end === 'released' || end === 'not accepted'
  if (end === undefined || end === 'superseded' || end === 'retried') return
  // Cancelled while it was offered; or a settle has accepted it, and counted it as it finished the job.
  if (end === 'finished' && unaccepted) return
  const expected = free ? attempt - 1 : attempt
  if (attemptAfter !== expected) accuse('I6', `${end}: attempt ${attempt}, and ${attemptAfter} spent`, id)
  if (next !== undefined && next.attempt !== expected + 1) {
    accuse('I6', `attempt ${next.attempt} came after ${expected} were spent`, id)
  }
}

/** The job was claimed again: under orphan and fail not by itself once an executor has seen a byte of it. */
function judgeAgain(
  id: string,
  { onLost }: Job,
  { end, answers, parts, unaccepted }: Claim,
  accuse: Accuse,
): void {
  if (onLost === 'requeue' || answers.length + parts.length === 0) return
  if (end === 'failed' || end === 'released' || end === 'retried') return
  // Who has not accepted has not started, and is refused from now on.
  if (unaccepted) return
  accuse(
    'I13',
    `${onLost}: handed out again after an executor had got a byte of it (${end ?? 'still held'})`,
    id,
  )
}

/** An executor has the job. */
function judgeReceived(facts: Facts, id: string, claim: Claim, accuse: Accuse, count: Count): void {
  const { end, ack, gateway, at, endAt } = claim
  const broken = claim.answers.flatMap(({ pull }) => facts.brokenness(pull.conn))
  // Its own close in order says that it had read everything.
  const excused =
    broken.some((one) => one.what !== 'fin' && one.at <= endAt + historyRules.clockMs) ||
    facts.troubled(gateway, at, endAt)
  const say = (what: string) =>
    accuse('twice', `${ack}: ${what}, though the executor had it and its connection was whole`, id)
  if (end === 'given back') {
    if (!excused) say('given back')
    else count('given back after a break, though read')
  }
  if (ack === 'auto' && (end === 'in doubt' || end === 'lost')) {
    if (!excused) say(end)
    else count('in doubt, though read')
  }
  if (ack === 'explicit' && end === 'lost' && endAt < claim.leaseEndsAt - historyRules.clockMs) {
    accuse('I1', 'lost before its lease had ended', id)
  }
}

/** Nobody saw a byte. An attempt may be spent all the same where the answer was on its way to someone who had gone. */
function judgeUnseen(
  facts: Facts,
  id: string,
  { onLost }: Job,
  claim: Claim,
  pulls: readonly Pull[],
  accuse: Accuse,
  count: Count,
): void {
  const { end, gateway, at, endAt, ack } = claim
  if (end === 'given back') return count('given back')
  if (end === undefined || end === 'retried' || end === 'superseded') return
  const brokenOf = (pull: Pull) => facts.brokenness(pull.asked.conn)
  const excused =
    facts.troubled(gateway, at, Math.min(endAt, at + historyRules.handOverMs)) ||
    pulls.some(
      (pull) =>
        !pull.asked.reads ||
        brokenOf(pull).some(
          (one) =>
            one.at <= at + historyRules.handOverMs &&
            // The gateway does not hear that a connection has ended that carries nothing any more.
            (one.what === 'swallowed' || pull.endAt >= at - historyRules.clockMs),
        ),
    )
  if (!excused) accuse('I6', `${end}, though no executor saw a byte of it and nothing had broken`, id)
  const open = pulls.filter((pull) => pull.endAt >= at)
  const goneAt = Math.max(...open.map((pull) => pull.endAt))
  const left =
    open.length > 0 &&
    open.every(({ answer, asked }) => answer === undefined && leftAt(facts, asked.conn) !== undefined)
  if (!left) return
  if (isGoneBeforeReply(facts, claim, goneAt)) {
    accuse('I6', `${end}, though whoever it was for had left before the claim was answered`, id)
  }
  const reset = open.every(({ asked }) => facts.closed(asked.conn)?.by === 'rst')
  const soon = goneAt <= at + historyRules.evidenceMs * 0.7
  if (
    ack === 'auto' &&
    end === 'confirmed' &&
    reset &&
    soon &&
    !facts.troubled(gateway, at, goneAt + historyRules.evidenceMs)
  ) {
    accuse('twice', `delivered (${onLost}), though the connection was reset at once and nothing was read`, id)
  }
}

function leftAt(facts: Facts, conn: string): number | undefined {
  const closed = facts.closed(conn)
  return closed?.by === 'fin' || closed?.by === 'rst' ? closed.at : undefined
}

/** Replies of Postgres took so long that the gateway knew of the leaving before it knew of the claim. */
function isGoneBeforeReply(facts: Facts, { gateway, at }: Claim, goneAt: number): boolean {
  const delayed = facts
    .of('replies delayed')
    .find((one) => one.gateway === gateway && one.at <= at && one.until >= goneAt + historyRules.clockMs)
  if (delayed === undefined || goneAt > at + delayed.ms - historyRules.proxyMs) return false
  return !facts.troubled(gateway, at - 1_000, goneAt + 1_000, [
    'gone during the claim',
    'database link delays',
  ])
}

function countRuns({ claims, onLost }: Job, count: Count): void {
  const runs = claims.filter(({ answers }) => answers.length > 0)
  if (runs.length > 0) count('jobs that ran')
  for (const [index, { end, ack }] of runs.entries()) {
    if (index < runs.length - 1) count(`ran again (${ack}, ${onLost}): ${end ?? 'still held'}`)
  }
}
