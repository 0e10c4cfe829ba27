import { randomUUID } from 'node:crypto'
import { insertJobs } from '../../support/crowd.ts'
import { ownTopic, past, separateTopics, soon, times } from './call.ts'
import type { Entry } from './call.ts'

/** Claims, and jobs handed out once more or taken back. */

const slots = (count: number, per: number) => Math.ceil(count / per)
const claimSql = 'pullgate.claim($1::bigint[], $2::uuid[], $3::integer[], $4::bigint[], $5::bigint[])'

export const claims: Record<string, Entry> = {
  claim: {
    calls: [
      {
        what: 'of one topic, one slot',
        sql: `select * from pullgate.claim(array[pullgate.topic_id($3)], array[$1::uuid], array[$2::integer], '{}', '{}')`,
        async prepare(world, count) {
          const topic = await ownTopic(world)
          await insertJobs(world.database, count, 'ready', { topic: `'${topic}'` })
          return [world.explicit, count, topic]
        },
      },
      {
        what: 'of one topic, a slot per job, with keys',
        sql: `select * from pullgate.claim(array_fill(pullgate.topic_id($4), array[cardinality($1::uuid[])]), $1, $2::integer[],
          '{}', '{}', 1, 1, $3::uuid[])`,
        async prepare(world, count) {
          const topic = await ownTopic(world)
          await insertJobs(world.database, count, 'ready', { topic: `'${topic}'` })
          return [
            times(count, world.offer),
            times(count, 1),
            times(count, null).map(() => randomUUID()),
            topic,
          ]
        },
      },
      {
        what: 'of several topics',
        sql: `select * from ${claimSql}`,
        async prepare(world, count) {
          const topics = await separateTopics(world, count)
          return [topics, times(count, world.auto), times(count, 1), [], []]
        },
      },
      {
        what: 'of empty topics',
        sql: `select * from ${claimSql}`,
        prepare: ({ explicit }, count) => [
          times(count, null).map((_, n) => String(n)),
          ...[times(count, explicit), times(count, 1), [], []],
        ],
      },
    ],
  },
  claim_due: {
    calls: [
      {
        what: 'of jobs that have fallen due',
        sql: `select * from pullgate.claim_due(100, clock_timestamp() - interval '1 minute', array[pullgate.topic_id($3)],
          array[$1::uuid], array[$2::integer], '{}', '{}')`,
        async prepare(world, count) {
          const topic = await ownTopic(world)
          await insertJobs(world.database, count, 'scheduled', { topic: `'${topic}'`, due_at: past })
          return [world.explicit, count, topic]
        },
      },
    ],
  },
  give_again: {
    calls: [
      {
        what: 'of jobs held by key',
        sql: `select * from pullgate.give_again($1::uuid[], $2::integer[])`,
        async prepare({ database, explicit }, count) {
          const keys = times(slots(count, 5), null).map(() => randomUUID())
          for (const key of keys) {
            await insertJobs(database, Math.min(count, 5), 'running', {
              ...soon,
              pull_key: `'${key}'`,
              subscription_id: `'${explicit}'`,
            })
          }
          return [keys, times(keys.length, 5)]
        },
      },
    ],
  },
  give_back_unheard: {
    calls: [
      {
        what: 'of claims of the last minute',
        sql: `select pullgate.give_back_unheard($1::bigint[], array[$2::uuid], 60)`,
        async prepare({ database, explicit }, count) {
          await insertJobs(database, count, 'running', {
            claim_id: '777',
            claimed_at: 'clock_timestamp()',
            lease_check_at: `clock_timestamp() + interval '60 seconds'`,
            subscription_id: `'${explicit}'`,
          })
          return [['777', '778'], explicit]
        },
      },
    ],
  },
}
