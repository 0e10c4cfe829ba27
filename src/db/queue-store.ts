import { GatewayError } from '../domain/errors.ts'
import type { PublishOptions, QueueStore } from '../domain/ports.ts'
import type { JobDetail, Snapshot, Topic } from '../domain/reads.ts'
import type { JobId, Problem } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'

/** Publishing over HTTP, reads for people and monitors, upkeep (sql/functions/publish.sql, views.sql, due.sql). */

const topicColumns = 't.name, t.paused, t.max_attempts as "maxAttempts", t.on_lost as "onLost"'

const statements = {
  publish: {
    name: 'publish',
    ofClients: true,
    text: `select p.id, p.is_new as "isNew" from pullgate.publish_once($1, $2::text, priority => $3, run_at => $4,
      delay => make_interval(secs => $5), dedupe_key => $6, max_attempts => $7, on_lost => $8,
      expires_at => $9, traceparent => $10) p`,
  },
  publishKeyed: {
    name: 'publish_keyed',
    ofClients: true,
    text: `select p.id, p.is_new as "isNew" from pullgate.publish_keyed($11, $12, $1, $2::text, priority => $3,
      run_at => $4, delay => make_interval(secs => $5), dedupe_key => $6, max_attempts => $7, on_lost => $8,
      expires_at => $9, traceparent => $10) p`,
  },
  forgetPublishKeys: { name: 'forget_publish_keys', text: 'select pullgate.forget_publish_keys($1) as keys' },
  readJob: {
    name: 'read_job',
    ofClients: true,
    text: `select j.id, j.topic, j.state, j.pending, j.priority, j.attempts, j.max_attempts as "maxAttempts",
        j.deliveries, j.on_lost as "onLost", j.dedupe_key as "dedupeKey", j.subscription_id as subscription,
        j.created_at as "createdAt", j.due_at as "dueAt", j.claimed_at as "claimedAt",
        j.finished_at as "finishedAt", j.lease_ends_at as "leaseExpiresAt", j.expires_at as "expiresAt",
        j.cancel_reason as "cancelReason", j.last_error as "lastError", j.progress, j.result, j.log as history
      from pullgate.read_job($1) j`,
  },
  readTopic: {
    name: 'read_topic',
    ofClients: true,
    text: `select ${topicColumns} from pullgate.read_topics(pullgate.topic_id($1)) t`,
  },
  readTopics: { name: 'read_topics', text: `select ${topicColumns} from pullgate.read_topics() t` },
  countJobs: {
    name: 'count_jobs',
    ofClients: true,
    text: `select c.state, c.jobs::integer, extract(epoch from clock_timestamp() - c.oldest_due_at)::float8 as oldest
      from pullgate.count_jobs(pullgate.topic_id($1)) c`,
  },
  snapshot: {
    name: 'snapshot_jobs',
    text: `select s.counts, s.taken_at as "takenAt", s.age_seconds as "ageSeconds",
        s.duration_seconds as "durationSeconds"
      from pullgate.snapshot_jobs($1) s where s.counts is not null`,
  },
  upkeep: { name: 'upkeep', text: 'select pullgate.upkeep()' },
  mendSequences: { name: 'mend_sequences', text: 'select pullgate.mend_sequences() as sequences' },
  doctor: { name: 'doctor', text: 'select * from pullgate.doctor()' },
} satisfies Record<string, Statement>

/** The id that the sequence gave is another job's: the sequence is behind (pullgate.mend_sequences). */
const isTakenId = (error: unknown): boolean => {
  const cause = error instanceof GatewayError ? error.cause : error
  return cause instanceof Error && 'constraint' in cause && cause.constraint === 'job_pkey'
}

/** A statement forgets at most so many keys: it takes some 100 ms. */
const forgetKeysMax = 10_000

function publishValues(topic: string, jobSpec: string, options: PublishOptions): unknown[] {
  const { priority, runAt, delaySeconds, dedupeKey, maxAttempts, onLost, expiresAt, traceparent } = options
  const rest = [dedupeKey, maxAttempts, onLost, expiresAt, traceparent]
  return [topic, jobSpec, priority, runAt, delaySeconds, ...rest]
}

export function createQueueStore(database: Database): QueueStore {
  async function mendSequences(): Promise<string[]> {
    const [row] = await database.query<{ sequences: string[] }>(statements.mendSequences, [])
    return row?.sequences ?? []
  }
  return {
    async publish(topic, jobSpec, options, request) {
      const values = publishValues(topic, jobSpec, options)
      const insert = () =>
        request === undefined
          ? database.query<{ id: JobId; isNew: boolean }>(statements.publish, values)
          : database.query<{ id: JobId; isNew: boolean }>(statements.publishKeyed, [
              ...values,
              request.key,
              request.body,
            ])
      const [row] = await insert().catch(async (error: unknown) => {
        if (!isTakenId(error)) throw error
        await mendSequences()
        return insert()
      })
      if (row === undefined) throw new Error('publishing returned no row')
      return row
    },
    async readJob(id) {
      const [row] = await database.query<JobDetail>(statements.readJob, [id])
      return row
    },
    async readTopic(name) {
      const [topic] = await database.query<Topic>(statements.readTopic, [name])
      if (topic === undefined) return undefined
      const rows = await database.query<{ state: string; jobs: number; oldest: number | null }>(
        statements.countJobs,
        [name],
      )
      const jobs = Object.fromEntries(rows.map((row) => [row.state, row.jobs]))
      return { ...topic, jobs, oldestReadySeconds: rows.find((row) => row.state === 'ready')?.oldest ?? null }
    },
    readTopics: () => database.query<Topic>(statements.readTopics, []),
    async snapshot(maxAgeSeconds) {
      const [row] = await database.query<Snapshot>(statements.snapshot, [maxAgeSeconds])
      return row
    },
    async upkeep() {
      await database.query(statements.upkeep, [])
      for (let forgotten = forgetKeysMax; forgotten === forgetKeysMax;) {
        const [row] = await database.query<{ keys: number }>(statements.forgetPublishKeys, [forgetKeysMax])
        forgotten = row?.keys ?? 0
      }
    },
    mendSequences,
    doctor: () => database.query<Problem>(statements.doctor, []),
  }
}
