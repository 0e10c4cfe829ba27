import type { SubscriptionStore, SubscriptionUse } from '../domain/ports.ts'
import type { SubscriptionId, TopicId } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'
import { ending } from './ended-jobs.ts'

/** Subscriptions (sql/functions/subscriptions.sql). */

// The ids of the topics come along, in the order of the names.
const withTopicIds = (source: string) => `
  select s.*, array(
      select pullgate.topic_id(t.name) from unnest(s.topics) with ordinality as t (name, position) order by t.position
    )::text[] as topic_ids
  from ${source} s`

const statements = {
  create: {
    name: 'subscribe',
    ofClients: true,
    text: withTopicIds('pullgate.subscribe($1::text[], $2, $3, $4, $5, $6)'),
  },
  read: { name: 'read_subscription', ofClients: true, text: withTopicIds('pullgate.read_subscriptions($1)') },
  list: { name: 'read_subscriptions', text: withTopicIds('pullgate.read_subscriptions()') },
  end: ending({ name: 'unsubscribe', ofClients: true, text: 'select pullgate.unsubscribe($1, $2) as ended' }),
  touch: { name: 'touch_subscriptions', text: 'select pullgate.touch_subscriptions($1::uuid[])' },
} satisfies Record<string, Statement>

type Row = {
  id: SubscriptionId
  name: string | null
  topics: string[]
  topic_ids: TopicId[]
  ack: 'auto' | 'explicit'
  lease_seconds: number
  offer_seconds: number | null
  max_parked: number | null
  created_at: Date
  last_pull_at: Date | null
  ended_at: Date | null
  jobs_held?: number
}

function toSubscription(row: Row): SubscriptionUse {
  return {
    id: row.id,
    name: row.name,
    topics: row.topics.map((name, position) => ({ name, id: row.topic_ids[position] ?? '' })),
    ack: row.ack,
    leaseSeconds: row.lease_seconds,
    offerSeconds: row.offer_seconds,
    maxParked: row.max_parked,
    createdAt: row.created_at,
    lastPullAt: row.last_pull_at,
    endedAt: row.ended_at,
    jobsHeld: row.jobs_held ?? 0,
  }
}

export function createSubscriptionStore(database: Database): SubscriptionStore {
  return {
    async create({ topics, name, ack, leaseSeconds, maxParked, offerSeconds }) {
      const values = [topics, name, ack, leaseSeconds, maxParked, offerSeconds]
      const [row] = await database.query<Row>(statements.create, values)
      if (row === undefined) throw new Error('pullgate.subscribe returned no row')
      return toSubscription(row)
    },
    async read(id) {
      const [row] = await database.query<Row>(statements.read, [id])
      return row && toSubscription(row)
    },
    async list() {
      const rows = await database.query<Row>(statements.list, [])
      return rows.map(toSubscription)
    },
    async end(id, release) {
      const [row] = await database.query<{ ended: boolean | null }>(statements.end, [id, release])
      return row?.ended ?? null
    },
    async touch(ids) {
      await database.query(statements.touch, [ids])
    },
  }
}
