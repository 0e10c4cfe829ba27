import type { JobState } from '../domain/job-states.ts'
import type { JobId, SubscriptionId } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'

/** Publishing over HTTP, reads for people and monitors, upkeep (sql/functions/publish.sql, views.sql, due.sql). */

const statements = {
  publish: {
    name: 'publish',
    text: `select pullgate.publish($1, $2::text, priority => coalesce($3, 0), run_at => $4,
      delay => make_interval(secs => $5), dedupe_key => $6, max_attempts => $7, on_lost => $8,
      expires_at => $9, traceparent => $10) as id`,
  },
  readJob: { name: 'read_job', text: 'select * from pullgate.read_job($1)' },
  readTopic: { name: 'read_topic', text: 'select * from pullgate.read_topics(pullgate.topic_id($1))' },
  countJobs: {
    name: 'count_jobs',
    text: `select c.state, c.jobs::integer, extract(epoch from clock_timestamp() - c.oldest_due_at)::float8 as oldest
      from pullgate.count_jobs(pullgate.topic_id($1)) c`,
  },
  readTopics: { name: 'read_topics', text: 'select * from pullgate.read_topics()' },
  snapshot: { name: 'snapshot_jobs', text: 'select * from pullgate.snapshot_jobs($1)' },
  upkeep: { name: 'upkeep', text: 'select pullgate.upkeep()' },
} satisfies Record<string, Statement>

export type PublishOptions = {
  readonly priority?: number | undefined
  readonly runAt?: string | undefined
  readonly delaySeconds?: number | undefined
  readonly dedupeKey?: string | undefined
  readonly maxAttempts?: number | undefined
  readonly onLost?: string | undefined
  readonly expiresAt?: string | undefined
  readonly traceparent?: string | undefined
}

export type JobDetail = {
  readonly id: JobId
  readonly topic: string
  readonly state: JobState
  readonly priority: number
  readonly attempts: number
  readonly max_attempts: number
  readonly deliveries: number
  readonly on_lost: string
  readonly dedupe_key: string | null
  readonly subscription_id: SubscriptionId | null
  readonly created_at: Date
  readonly due_at: Date
  readonly claimed_at: Date | null
  readonly finished_at: Date | null
  readonly lease_ends_at: Date | null
  readonly expires_at: Date | null
  readonly cancel_reason: string | null
  readonly last_error: string | null
  /** JSON texts. */
  readonly progress: string | null
  readonly result: string | null
  readonly log: readonly unknown[]
  readonly pending: string | null
}

export type Topic = {
  readonly name: string
  readonly paused: boolean
  readonly max_attempts: number
  readonly on_lost: string
}

export type TopicCounts = {
  readonly jobs: Readonly<Record<string, number>>
  readonly oldestReadySeconds: number | null
}

export type Snapshot = {
  readonly counts: readonly {
    readonly topic: string
    readonly state: string
    readonly jobs: number
    readonly oldestAt: string | null
  }[]
  readonly takenAt: Date
  /** How old the counts were when they were read. */
  readonly ageSeconds: number
  readonly durationSeconds: number
}

export type QueueStore = ReturnType<typeof createQueueStore>

export function createQueueStore(database: Database) {
  return {
    /** `jobSpec` is JSON text, kept as it is. */
    async publish(topic: string, jobSpec: string, options: PublishOptions): Promise<JobId> {
      const { priority, runAt, delaySeconds, dedupeKey, maxAttempts, onLost, expiresAt, traceparent } = options
      const values = [topic, jobSpec, priority, runAt, delaySeconds, dedupeKey, maxAttempts, onLost, expiresAt, traceparent]
      const [row] = await database.query<{ id: JobId }>(statements.publish, values)
      if (row === undefined) throw new Error('pullgate.publish returned no row')
      return row.id
    },
    async readJob(id: JobId): Promise<JobDetail | undefined> {
      const [row] = await database.query<JobDetail>(statements.readJob, [id])
      return row
    },
    /** Counted now. */
    async readTopic(name: string): Promise<(Topic & TopicCounts) | undefined> {
      const [topic] = await database.query<Topic>(statements.readTopic, [name])
      if (topic === undefined) return undefined
      const rows = await database.query<{ state: string; jobs: number; oldest: number | null }>(
        statements.countJobs,
        [name],
      )
      const jobs = Object.fromEntries(rows.map((row) => [row.state, row.jobs]))
      const oldest = rows.find((row) => row.state === 'ready')?.oldest ?? null
      return { ...topic, jobs, oldestReadySeconds: oldest }
    },
    readTopics: () => database.query<Topic>(statements.readTopics, []),
    /** Counts anew if the kept counts are older than `maxAgeSeconds` and nobody else is at it. */
    async snapshot(maxAgeSeconds: number): Promise<Snapshot | undefined> {
      const [row] = await database.query<{
        counts: Snapshot['counts'] | null
        taken_at: Date
        age_seconds: number
        duration_seconds: number
      }>(statements.snapshot, [maxAgeSeconds])
      if (row?.counts === undefined || row.counts === null) return undefined
      return {
        counts: row.counts,
        takenAt: row.taken_at,
        ageSeconds: row.age_seconds,
        durationSeconds: row.duration_seconds,
      }
    },
    async upkeep(): Promise<void> {
      await database.query(statements.upkeep, [])
    },
  }
}
