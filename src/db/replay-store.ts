import type { ReplayStore } from '../domain/ports.ts'
import type { ClaimedJob, JobId, Lease, PullKey, Subscription, TopicId } from '../domain/types.ts'
import { coalesce } from './coalesce.ts'
import type { Database } from './database.ts'
import { isOfOneItem } from './settle-store.ts'

/** Pulls that come again with their key (sql/functions/give-again.sql). */

const giveAgain = {
  name: 'give_again',
  text: 'select * from pullgate.give_again($1::uuid[], $2::integer[])',
}

type Repeated = { readonly key: PullKey; readonly subscription: Subscription; readonly max: number }

type Row = {
  pull: number
  id: JobId
  topic_id: TopicId
  lease: Lease
  lease_seconds: number
  lease_ends_at: Date
  hold_seconds: number
  offered: boolean
  attempt: number
  redelivered: boolean
  published_at: Date
  traceparent: string | null
  job_spec: string
}

function toJob(row: Row, { topics }: Subscription): ClaimedJob {
  const topic = topics.find(({ id }) => id === row.topic_id)
  if (topic === undefined) throw new Error(`job ${row.id} is of no topic of the subscription that holds it`)
  return {
    id: row.id,
    topic,
    lease: row.lease,
    leaseSeconds: row.lease_seconds,
    leaseEndsAt: row.lease_ends_at,
    holdSeconds: row.hold_seconds,
    offered: row.offered,
    attempt: row.attempt,
    redelivered: row.redelivered,
    publishedAt: row.published_at,
    readySeconds: 0,
    traceparent: row.traceparent,
    jobSpec: row.job_spec,
  }
}

/** Look-ups that come at the same time share a statement. */
export function createReplayStore(database: Database): ReplayStore {
  async function giveAll(pulls: readonly Repeated[]): Promise<ClaimedJob[][]> {
    // Of two with the same key the later one has superseded the other.
    const last = [...new Map(pulls.map((pull) => [pull.key, pull])).values()]
    const values = [last.map(({ key }) => key), last.map(({ max }) => max)]
    const rows = await database.query<Row>(giveAgain, values)
    return pulls.map((pull) => {
      const index = last.indexOf(pull)
      return rows.filter((row) => row.pull === index + 1).map((row) => toJob(row, pull.subscription))
    })
  }
  const give = coalesce(giveAll, { isOfOneItem })
  return { giveAgain: (key, subscription, max) => give({ key, subscription, max }) }
}
