import type { DueResult, WatchStore } from '../domain/ports.ts'
import type { SubscriptionId, TopicId } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'
import { ending } from './ended-jobs.ts'
import { ascending } from './lane-marks.ts'

/** Looking, arming, due work, low-water marks: sql/functions/look.sql, due.sql, wake.sql, marks.sql. */

export const runDueStatement = ending({ name: 'run_due', text: 'select * from pullgate.run_due($1, $2)' })
/** An instant as a text that keeps each microsecond and is read back the same under any DateStyle and TimeZone. */
const isoText = (column: string) => `to_jsonb(${column}) #>> '{}'`

const statements = {
  runDue: runDueStatement,
  look: {
    name: 'look',
    text: `select ready_topics::text[], ended::text[], due_in_ms, due_topic, fence::text, horizon::text,
        coalesce(unlocked, '{}') as unlocked
      from pullgate.look($1::bigint[], $2::bigint[], $3::bigint[], $4, $5, $6, $7)`,
  },
  arm: { name: 'arm', text: 'select pullgate.arm($1, $2::bigint[])::text[] as fresh' },
  disarm: { name: 'disarm', text: 'select pullgate.disarm($1, $2::bigint[])' },
  advanceMarks: {
    name: 'advance_marks',
    text: `select passed, coalesce(topics, '{}')::text[] as topics, coalesce(lanes, '{}')::text[] as lanes,
        coalesce(marks, '{}')::text[] as marks, ${isoText('due_after')} as due_after, upto::text, fence::text, ${isoText('at')} as at,
        running::text[]
      from pullgate.advance_marks($1::bigint[], $2::bigint[], $3::bigint[], $4, $5, $6, $7, $8::xid8[])`,
  },
  reseat: {
    name: 'reseat',
    text: 'select topics::text[], remaining from pullgate.reseat($1::bigint[], $2::bigint[], $3, $4)',
  },
  notify: { name: 'notify', text: 'select pg_notify($1, $2)' },
} satisfies Record<string, Statement>

export type Notifier = {
  /** For the listener alone: a notification by a session that is not its own. */
  notify(channel: string, payload: string): Promise<void>
}

export type DueRow = {
  topics: TopicId[]
  promoted: number
  expired: number
  leases_checked: number
  leases_lost: DueResult['leasesLost']
  offers_ended: DueResult['offersEnded']
  more: boolean
  waited_ms: number
  stuck: number
}

export function toDueResult({
  leases_checked,
  leases_lost,
  offers_ended,
  waited_ms,
  ...row
}: DueRow): DueResult {
  return {
    ...{ ...row, leasesChecked: leases_checked, leasesLost: leases_lost },
    ...{ offersEnded: offers_ended, waitedMs: waited_ms },
  }
}

export function createWatchStore(database: Database): WatchStore & Notifier {
  async function one<Row extends object>(statement: Statement, values: readonly unknown[]): Promise<Row> {
    const [row] = await database.query<Row & Record<string, unknown>>(statement, values)
    if (row === undefined) throw new Error(`pullgate.${statement.name} returned no row`)
    return row
  }
  return {
    async runDue(limit, dueAfter) {
      return toDueResult(await one<DueRow>(statements.runDue, [limit, dueAfter]))
    },
    async look({ topics, marks, dueAfter, readyMs, fence, gateways }) {
      const row = await one<{
        ready_topics: TopicId[]
        ended: SubscriptionId[]
        due_in_ms: number | null
        due_topic: TopicId | null
        fence: string | null
        horizon: string
        unlocked: number[]
      }>(statements.look, [topics, ...ascending([marks]), dueAfter, readyMs, fence, gateways])
      return {
        readyTopics: row.ready_topics,
        ended: row.ended,
        dueInMs: row.due_in_ms,
        dueTopic: row.due_topic,
        fence: row.fence === null ? null : BigInt(row.fence),
        horizon: BigInt(row.horizon),
        unlocked: row.unlocked,
      }
    },
    async arm(gateway, topics) {
      const { fresh } = await one<{ fresh: TopicId[] }>(statements.arm, [gateway, topics])
      return fresh
    },
    async disarm(gateway, topics) {
      await database.query(statements.disarm, [gateway, topics])
    },
    async advanceMarks({ topics, marks, dueAfter, pair, leftOut }) {
      const row = await one<{
        passed: boolean
        topics: TopicId[]
        lanes: string[]
        marks: string[]
        due_after: string
        upto: string
        fence: string
        at: string
        running: string[]
      }>(statements.advanceMarks, [
        ...[topics, ...ascending([marks]), dueAfter, pair?.upto, pair?.fence, pair?.at],
        leftOut,
      ])
      return {
        passed: row.passed
          ? { topics: row.topics, lanes: row.lanes, marks: row.marks, dueAfter: row.due_after }
          : null,
        pair: { upto: BigInt(row.upto), fence: BigInt(row.fence), at: row.at },
        running: row.running.map(BigInt),
      }
    },
    reseat: ({ lanes, marks }, from, limit) =>
      one<{ topics: TopicId[]; remaining: boolean }>(statements.reseat, [lanes, marks, from, limit]),
    async notify(channel, payload) {
      await database.query(statements.notify, [channel, payload])
    },
  }
}
