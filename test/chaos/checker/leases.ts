import type { Claim, Facts } from './facts.ts'
import type { Accuse, Count } from './judge.ts'

/** I1: at most one live lease per job. */
export function judgeLeases(facts: Facts, accuse: Accuse, count: Count): void {
  for (const { id } of facts.phantoms)
    accuse('I1', 'an executor got the job under a lease that the job never had', id)
  for (const [id, { claims }] of facts.jobs) {
    count('claims', claims.length)
    for (const claim of claims) {
      if (claim.end === 'superseded')
        accuse('I1', `claimed again by ${claim.gateway}'s peer while it ran`, id)
      if (claim.offered) count(claim.unaccepted ? 'offers not accepted by a heartbeat' : 'offers accepted')
      judgeHolders(id, claim, accuse)
    }
  }
}

/** One claim is for one executor: another answer with it is a second holder of the lease. */
function judgeHolders(id: string, { answers }: Claim, accuse: Accuse): void {
  const [first, ...others] = answers
  for (const { pull } of others) {
    const again = pull.idempotencyKey !== undefined && pull.idempotencyKey === first?.pull.idempotencyKey
    if (!again)
      accuse('I1', `handed to ${first?.pull.conn ?? '?'} and, by the same claim, to ${pull.conn}`, id)
  }
}
