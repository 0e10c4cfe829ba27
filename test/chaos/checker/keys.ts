import { createHash } from 'node:crypto'
import { grouped } from './facts.ts'
import type { Claim, Facts, Pull } from './facts.ts'
import type { Accuse, Count } from './judge.ts'
import { historyRules } from './margins.ts'

/** A pull that comes again with its key is given again what an earlier one was handed, while that is unsettled. */
export function judgeKeys(facts: Facts, accuse: Accuse, count: Count): void {
  const pulls = grouped(facts.pulls.values(), ({ asked }) => digestOf(asked) ?? '')
  for (const [id, { claims }] of facts.jobs) {
    for (const claim of claims) {
      if (claim.pullKey === null) continue
      for (const pull of pulls.get(claim.pullKey) ?? []) {
        // The claim was made for this one, or it is older still.
        if (pull.asked.at <= claim.at) continue
        if (pull.answer?.jobs.some(({ lease }) => lease === claim.lease)) count('jobs given again to a key')
        else if (isOwed(facts, claim, pull)) {
          accuse('keys', `not given again to its key, though it was still held (${pull.asked.pull})`, id)
        }
      }
    }
  }
}

function digestOf({ subscription, idempotencyKey }: Pull['asked']): string | undefined {
  if (idempotencyKey === undefined) return undefined
  return createHash('sha256').update(`${subscription} ${idempotencyKey}`).digest('hex').slice(0, 32)
}

/** While the claim counted the pull was answered, or left unanswered, and its place was not another such job's. */
function isOwed(facts: Facts, claim: Claim, pull: Pull): boolean {
  const { asked, answer } = pull
  if (answer === undefined && !isIgnored(facts, pull)) return false
  if (answer !== undefined && answer.status !== 200 && answer.status !== 204) return false
  const until = answer?.firstByteAt ?? pull.endAt
  // A claim that had not committed when the pull looked is not seen by it.
  if (asked.at < claim.at + historyRules.proxyMs) return false
  if (until > Math.min(claim.endAt, claim.leaseEndsAt) - historyRules.clockMs) return false
  if (facts.troubled(claim.gateway, claim.at, until)) return false
  if (facts.troubled(asked.gateway, asked.at, until)) return false
  const given = (answer?.jobs ?? []).filter(({ id, lease }) =>
    facts.jobs
      .get(id)
      ?.claims.some((one) => one.lease === lease && one.pullKey === claim.pullKey && one.at < asked.at),
  )
  return given.length < asked.max
}

/** It had time to be answered, on a whole connection, until its executor left. */
function isIgnored(facts: Facts, { asked, endAt, broken }: Pull): boolean {
  const whole = facts.brokenness(asked.conn).every(({ what }) => what === 'fin')
  return whole && asked.reads && broken?.firstByteAt === null && endAt - asked.at > historyRules.orderMs
}
