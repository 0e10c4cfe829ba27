import { randomUUID } from 'node:crypto'
import { insertJobs } from '../../support/crowd.ts'
import { times } from './call.ts'
import type { Entry } from './call.ts'

/** Publishing and subscribing. */

export const publishing: Record<string, Entry> = {
  publish: {
    calls: [
      {
        what: 'as text',
        sql: `select pullgate.publish('work', '{}') from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'as jsonb, later',
        sql: `select pullgate.publish('work', '{}'::jsonb, delay => interval '5 hours') from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with a new key',
        sql: `select pullgate.publish('work', '{}', dedupe_key => gen_random_uuid()::text) from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with a key that is taken',
        sql: `select pullgate.publish('work', '{}', dedupe_key => k) from unnest($1::text[]) k`,
        async prepare({ database }, count) {
          const key = randomUUID()
          await insertJobs(database, 1, 'ready', { dedupe_key: `'${key}'` })
          return [times(count, key)]
        },
      },
      {
        what: 'to a new topic',
        sql: `select pullgate.publish('new' || gen_random_uuid(), '{}') from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
    ],
  },
  publish_many: {
    calls: [
      {
        what: 'as text',
        sql: `select pullgate.publish_many('work', $1::text[])`,
        prepare: (_, count) => [times(count, '{}')],
      },
      {
        what: 'as jsonb, with keys',
        sql: `select pullgate.publish_many('work', $1::jsonb[], dedupe_keys => $2::text[])`,
        prepare: (_, count) => [times(count, '{}'), times(count, null).map(() => randomUUID())],
      },
    ],
  },
  inbox: {
    calls: [
      {
        what: 'takes rows',
        sql: `insert into pullgate.inbox (topic, job_spec) select 'work', '{}' from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
    ],
  },
}

export const subscriptions: Record<string, Entry> = {
  subscribe: {
    calls: [
      {
        what: 'without a name',
        sql: `select pullgate.subscribe(array['work'], null, 'explicit', 60, null) from generate_series(1, $1)`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with the name of a live one',
        sql: `select pullgate.subscribe(array['work'], $2, 'explicit', 60, null) from generate_series(1, $1)`,
        async prepare({ database }, count) {
          const name = randomUUID()
          await database.query(`select pullgate.subscribe(array['work'], $1, 'explicit', 60, null)`, [name])
          return [count, name]
        },
      },
    ],
  },
  unsubscribe: {
    calls: [
      {
        what: 'that releases jobs',
        sql: 'select pullgate.unsubscribe($1, true)',
        readsAll: 'the held jobs of all subscriptions, by job_lease_check',
        async prepare({ database }, count) {
          const id = (await database.value(
            `select id from pullgate.subscribe(array['work'], null, 'explicit', 60, null)`,
          )) as string
          await insertJobs(database, count, 'running', { subscription_id: `'${id}'` })
          return [id]
        },
      },
    ],
  },
  read_subscriptions: {
    calls: [
      {
        what: 'of one',
        sql: 'select * from pullgate.read_subscriptions($1)',
        readsAll: 'the held jobs of all subscriptions, by job_lease_check',
        prepare: ({ explicit }) => [explicit],
      },
      {
        what: 'of all',
        sql: 'select * from pullgate.read_subscriptions()',
        readsAll: 'all subscriptions and all held jobs',
        prepare: () => [],
      },
    ],
  },
  touch_subscriptions: {
    calls: [
      {
        what: 'that were not touched lately',
        sql: 'select pullgate.touch_subscriptions($1::uuid[])',
        async prepare({ database }, count) {
          const made = await database.query<{ id: string }>(
            `insert into pullgate.subscription (topics, ack, lease_seconds)
              select '{work}', 'explicit', 60 from generate_series(1, $1) returning id`,
            [count],
          )
          return [made.map(({ id }) => id)]
        },
      },
    ],
  },
}
