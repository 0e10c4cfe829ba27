import { running, separateTopics } from './call.ts'
import type { Entry } from './call.ts'

/** Reads, views, settings. */

export const readings: Record<string, Entry> = {
  read_topics: {
    calls: [
      {
        what: 'of one',
        sql: `select t.* from unnest($1::bigint[]) n (id), pullgate.read_topics(n.id) t`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
      {
        what: 'of all',
        sql: 'select * from pullgate.read_topics()',
        prepare: () => [],
        readsAll: 'all topics',
      },
    ],
  },
  count_jobs: {
    calls: [
      {
        what: 'of one topic',
        sql: `select * from pullgate.count_jobs(pullgate.topic_id('work'))`,
        prepare: () => [],
        readsAll: 'the scheduled and the held jobs of all topics',
      },
      {
        what: 'of all',
        sql: 'select * from pullgate.count_jobs()',
        prepare: () => [],
        readsAll: 'all live jobs',
      },
    ],
  },
  snapshot_jobs: {
    calls: [
      {
        what: 'that counts',
        sql: 'select * from pullgate.snapshot_jobs(0)',
        prepare: () => [],
        readsAll: 'all live jobs',
      },
      {
        what: 'that was counted',
        sql: 'select * from pullgate.snapshot_jobs(3600)',
        prepare: () => [],
      },
    ],
  },
  jobs: {
    calls: [
      {
        what: 'by id',
        isView: true,
        sql: 'select v.* from unnest($1::bigint[]) e (id), lateral (select * from pullgate.jobs j where j.id = e.id offset 0) v',
        prepare: async (world, count) => [(await running(world, count)).ids],
      },
      {
        what: 'by topic',
        isView: true,
        sql: `select count(*) from pullgate.jobs where topic = 'work'`,
        prepare: () => [],
        readsAll: 'all jobs, live and finished',
      },
    ],
  },
  topics: {
    calls: [
      {
        what: 'by name',
        isView: true,
        sql: `select * from pullgate.topics where topic = 'work'`,
        prepare: () => [],
        readsAll: 'all live jobs',
      },
    ],
  },
  configure_topic: {
    calls: [
      {
        what: 'of topics that exist',
        sql: `select pullgate.configure_topic(n.name, false) from unnest($1::text[]) n (name)`,
        async prepare({ database }, count) {
          const made = await database.query<{ name: string }>(
            `insert into pullgate.topic (id, name)
              select pullgate.topic_id(t.name), t.name
                from (select 'set' || gen_random_uuid() as name from generate_series(1, $1)) t
              returning name`,
            [count],
          )
          return [made.map(({ name }) => name)]
        },
      },
    ],
  },
  configure: { calls: [{ what: '', sql: 'select * from pullgate.configure()', prepare: () => [] }] },
}
