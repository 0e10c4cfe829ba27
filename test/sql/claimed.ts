import { publish, row, rows, subscribe } from './jobs.ts'
import type { Held, PublishOptions, Runner } from './jobs.ts'

export type Claiming = PublishOptions & {
  ack?: 'auto' | 'explicit'
  /** Seconds since the claim. */
  ago?: number
  /** The number of the claim statement. */
  claim?: number
  lease?: number
}

/** The topic's next job, claimed by this gateway in a statement of this number. */
export function claimUnder(
  runner: Runner,
  gateway: number,
  { topic, subscription, claim }: { topic: string; subscription: string; claim: number },
): Promise<Held> {
  return row<Held>(
    runner,
    `select id, lease from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], '{1}', '{}', '{}', $3, $4)`,
    [topic, subscription, gateway, claim],
  )
}

let count = 0

/** A fresh topic's job that the gateway has claimed, 3 s ago unless told otherwise. */
export async function claimedBy(runner: Runner, gateway: number, options: Claiming = {}): Promise<Held> {
  const { ack = 'auto', ago = 3, claim = 0, lease = 60, ...more } = options
  const topic = `claimed_${++count}`
  const subscription = await subscribe(runner, topic, { ack, lease })
  await publish(runner, topic, more)
  const job = await claimUnder(runner, gateway, { topic, subscription, claim })
  await rows(
    runner,
    `update pullgate.job set claimed_at = claimed_at - a.ago, lease_ends_at = lease_ends_at - a.ago,
        lease_check_at = lease_check_at - a.ago
      from (select make_interval(secs => $2) as ago) a where id = $1`,
    [job.id, ago],
  )
  return job
}
