import { randomUUID } from 'node:crypto'
import { insertJobs } from '../../support/crowd.ts'
import type { Columns, State } from '../../support/crowd.ts'
import type { TestDatabase } from '../../support/database.ts'
import { past, separateTopics, times } from './call.ts'
import type { Call, Entry, Prepared, World } from './call.ts'

/** Time, looks, gateways. */

const dueCall = (what: string, state: State, columns: Columns): Call => ({
  what,
  // Not from the beginning of time: what earlier calls have ended is dead, and would be walked.
  sql: `select * from pullgate.run_due($1, clock_timestamp() - interval '1 minute')`,
  async prepare({ database }, count) {
    await insertJobs(database, count, state, columns)
    return [count]
  },
})
const over: Columns = { lease_ends_at: past, lease_check_at: past }

export const time: Record<string, Entry> = {
  run_due: {
    calls: [
      dueCall('that makes jobs ready', 'scheduled', { due_at: past }),
      dueCall('that ends leases', 'running', over),
      dueCall('that ends leases for good', 'running', { ...over, on_lost: `'fail'` }),
      dueCall('that ends offers', 'offered', over),
      dueCall('that looks at renewed leases', 'running', { lease_check_at: past }),
      dueCall('that ends the wait for outcomes', 'delivered', { lease_check_at: past }),
      dueCall('that expires jobs', 'ready', { expires_at: past }),
    ],
  },
  look: {
    calls: [
      {
        what: 'at topics with jobs',
        sql: `select * from pullgate.look($1::bigint[], '{}', '{}', null, 0, true, false)`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
      {
        what: 'at topics without jobs',
        sql: `select * from pullgate.look($1::bigint[], '{}', '{}', null, 0, true, false)`,
        prepare: (_, count) => [times(count, null).map((_, n) => String(n))],
      },
    ],
  },
  upkeep: {
    calls: [
      {
        what: 'with idle subscriptions',
        sql: 'select pullgate.upkeep()',
        readsAll: 'all subscriptions and all held jobs, once a minute',
        async prepare({ database }, count) {
          await database.query(
            `insert into pullgate.subscription (topics, ack, lease_seconds, created_at)
              select '{work}', 'explicit', 60, now() - interval '100 days' from generate_series(1, $1)`,
            [count],
          )
          return []
        },
      },
    ],
  },
  advance_marks: {
    calls: [
      {
        what: 'of topics with jobs',
        sql: `select * from pullgate.advance_marks($1::bigint[], '{}', '{}', null, 0, pg_current_xact_id(), now(), '{}')`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
    ],
  },
  reseat: {
    calls: [
      {
        what: 'of ready jobs',
        sql: `select * from pullgate.reseat(array[pullgate.digest($2::text || '/0') & ~1::bigint], array[9e15::bigint], 0, $1)`,
        async prepare({ database }, count) {
          const topic = `late${randomUUID()}`
          await insertJobs(database, count, 'ready', { topic: `'${topic}'` })
          return [count, topic]
        },
      },
    ],
  },
}

const ofGateway = async ({ database }: World, count: number, state: State): Promise<string> => {
  const id = String(
    await database.value(
      'insert into pullgate.gateway (id) select 1 + max(id) from pullgate.gateway returning id',
    ),
  )
  const claimed_at = `clock_timestamp() - interval '30 seconds'`
  await insertJobs(database, count, state, { gateway_id: id, claimed_at })
  return id
}
export const gateways: Record<string, Entry> = {
  join_gateway: { calls: [{ what: '', sql: 'select pullgate.join_gateway()', prepare: () => [] }] },
  bury: {
    calls: (['unconfirmed', 'offered'] as const).map((state) => ({
      what: `of a gateway with ${state} jobs`,
      sql: 'select pullgate.bury(array[$1::integer])',
      prepare: async (world: World, count: number) => [await ofGateway(world, count, state)],
    })),
  },
  retire: {
    calls: [
      {
        what: 'that gives back',
        sql: `select pullgate.retire(array[$1::integer], 0, '{}', '{}')`,
        prepare: async (world, count) => [await ofGateway(world, count, 'unconfirmed')],
      },
      {
        what: 'that keeps offers',
        sql: `select pullgate.retire(array[$1::integer], 1, '{}', '{}')`,
        prepare: async (world, count) => [await ofGateway(world, count, 'offered')],
      },
    ],
  },
  arm: {
    calls: [
      {
        what: 'of new topics',
        sql: 'select pullgate.arm($1::uuid, $2::bigint[])',
        prepare: (_, count) => [randomUUID(), times(count, null).map((_, n) => String(n))],
      },
      {
        what: 'of topics armed before',
        sql: 'select pullgate.arm($1::uuid, $2::bigint[])',
        prepare: async ({ database }, count) => armedTopics(database, count),
      },
    ],
  },
  disarm: {
    calls: [
      {
        what: 'of armed topics',
        sql: 'select pullgate.disarm($1::uuid, $2::bigint[])',
        prepare: ({ database }, count) => armedTopics(database, count),
      },
    ],
  },
}
async function armedTopics(database: TestDatabase, count: number): Promise<Prepared> {
  const gateway = randomUUID()
  const topics = times(count, null).map((_, n) => String(n))
  await database.query(
    `insert into pullgate.armed (gateway_id, topic_id, until)
      select $1, unnest($2::bigint[]), clock_timestamp() + interval '20 seconds'`,
    [gateway, topics],
  )
  return [gateway, topics]
}
