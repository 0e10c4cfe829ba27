import type { DueResult, WatchStore } from '../domain/ports.ts'
import type { SubscriptionId, TopicId } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'

/** Looking, arming, due work, low-water marks: sql/functions/look.sql, due.sql, wake.sql, marks.sql. */

const statements = {
  runDue: { name: 'run_due', text: 'select * from pullgate.run_due($1, $2)' },
  look: {
    name: 'look',
    text: `select ready_topics::text[], ended::text[], due_in_ms, fence::text, horizon::text
      from pullgate.look($1::bigint[], $2::bigint[], $3::bigint[], $4, $5, $6)`,
  },
  arm: { name: 'arm', text: 'select pullgate.arm($1, $2::bigint[])::text[] as fresh' },
  disarm: { name: 'disarm', text: 'select pullgate.disarm($1, $2::bigint[])' },
  advanceMarks: {
    name: 'advance_marks',
    text: `select passed, coalesce(topics, '{}')::text[] as topics, coalesce(lanes, '{}')::text[] as lanes,
        coalesce(marks, '{}')::text[] as marks, due_after::text, upto::text, fence::text, at::text, running::text[]
      from pullgate.advance_marks($1::bigint[], $2::bigint[], $3::bigint[], $4, $5, $6, $7, $8::xid8[])`,
  },
  reseat: {
    name: 'reseat',
    text: 'select topics::text[], remaining from pullgate.reseat($1::bigint[], $2::bigint[], $3, $4)',
  },
} satisfies Record<string, Statement>

export function createWatchStore(database: Database): WatchStore {
  async function one<Row extends object>(statement: Statement, values: readonly unknown[]): Promise<Row> {
    const [row] = await database.query<Row & Record<string, unknown>>(statement, values)
    if (row === undefined) throw new Error(`pullgate.${statement.name} returned no row`)
    return row
  }
  return {
    async runDue(limit, dueAfter) {
      const { topics, promoted, expired, more, leases_checked, leases_lost, offers_ended } = await one<{
        topics: TopicId[]
        promoted: number
        expired: number
        leases_checked: number
        leases_lost: DueResult['leasesLost']
        offers_ended: DueResult['offersEnded']
        more: boolean
      }>(statements.runDue, [limit, dueAfter])
      return {
        ...{ topics, promoted, expired, more, leasesChecked: leases_checked },
        ...{ leasesLost: leases_lost, offersEnded: offers_ended },
      }
    },
    async look({ topics, marks, dueAfter, readyMs, fence }) {
      const row = await one<{
        ready_topics: TopicId[]
        ended: SubscriptionId[]
        due_in_ms: number | null
        fence: string | null
        horizon: string
      }>(statements.look, [topics, marks.lanes, marks.marks, dueAfter, readyMs, fence])
      return {
        readyTopics: row.ready_topics,
        ended: row.ended,
        dueInMs: row.due_in_ms,
        fence: row.fence === null ? null : BigInt(row.fence),
        horizon: BigInt(row.horizon),
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
        ...[topics, marks.lanes, marks.marks, dueAfter, pair?.upto, pair?.fence, pair?.at],
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
  }
}
