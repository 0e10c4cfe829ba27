import type { ReplayStore } from '../domain/ports.ts'
import type { ClaimedJob, PullKey, Subscription, TopicId } from '../domain/types.ts'
import { coalesce } from './coalesce.ts'
import type { Database } from './database.ts'
import { toJob } from './job-store.ts'
import type { JobRow } from './job-store.ts'
import { isOfOneItem } from './settle-store.ts'

/** Pulls that come again with their key (sql/functions/give-again.sql). */

const giveAgain = {
  name: 'give_again',
  text: 'select * from pullgate.give_again($1::uuid[], $2::integer[])',
}

type Repeated = { readonly key: PullKey; readonly subscription: Subscription; readonly max: number }

type Row = Omit<JobRow, 'ready_seconds'> & {
  pull: number
  topic_id: TopicId
  hold_seconds: number
  offered: boolean
}

function toJobAgain(row: Row, { topics }: Subscription): ClaimedJob {
  const topic = topics.find(({ id }) => id === row.topic_id)
  if (topic === undefined) throw new Error(`job ${row.id} is of no topic of the subscription that holds it`)
  return toJob({ ...row, ready_seconds: 0 }, topic, { holdSeconds: row.hold_seconds, offered: row.offered })
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
      return rows.filter((row) => row.pull === index + 1).map((row) => toJobAgain(row, pull.subscription))
    })
  }
  const give = coalesce(giveAll, { isOfOneItem })
  return { giveAgain: (key, subscription, max) => give({ key, subscription, max }) }
}
