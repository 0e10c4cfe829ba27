import { randomUUID } from 'node:crypto'
import { insertJobs } from '../../support/crowd.ts'
import { running, separateTopics, times } from './call.ts'
import type { Entry } from './call.ts'

/** Publishing with a word of whether it was new, keys of requests, and what keeps the tables in order. */
export const keeping: Record<string, Entry> = {
  publish_once: {
    calls: [
      {
        what: 'of a new job',
        sql: `select p.* from generate_series(1, $1), pullgate.publish_once('work', '{}') p`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with a key that is taken',
        sql: `select p.* from unnest($1::text[]) k, pullgate.publish_once('work', '{}', dedupe_key => k) p`,
        async prepare({ database }, count) {
          const key = randomUUID()
          await insertJobs(database, 1, 'ready', { dedupe_key: `'${key}'` })
          return [times(count, key)]
        },
      },
    ],
  },
  publish_keyed: {
    calls: [
      {
        what: 'with new keys',
        sql: `select p.* from generate_series(1, $1), pullgate.publish_keyed(gen_random_uuid(), gen_random_uuid(), 'work', '{}') p`,
        prepare: (_, count) => [count],
      },
      {
        what: 'with a known key',
        sql: `select p.* from unnest($1::uuid[]) k, pullgate.publish_keyed(k, $2, 'work', '{}') p`,
        async prepare({ database }, count) {
          const [key, request] = [randomUUID(), randomUUID()]
          await database.query(`select pullgate.publish_keyed($1, $2, 'work', '{}')`, [key, request])
          return [times(count, key), request]
        },
      },
    ],
  },
  forget_publish_keys: {
    calls: [
      {
        what: 'of two days ago',
        sql: 'select pullgate.forget_publish_keys($1)',
        async prepare({ database }, count) {
          await database.query(
            `insert into pullgate.publish_key (key, request, created_at)
              select gen_random_uuid(), gen_random_uuid(), now() - interval '2 days' from generate_series(1, $1)`,
            [count],
          )
          return [count]
        },
      },
    ],
  },
  set_aside_unclaimable: {
    calls: [
      {
        what: 'where all can be read',
        sql: `select pullgate.set_aside_unclaimable($1::bigint[], '{}', '{}', 1)`,
        prepare: async (world, count) => [await separateTopics(world, count)],
      },
    ],
  },
  set_aside_held: {
    calls: [
      {
        what: 'of running jobs',
        sql: `select pullgate.set_aside_held(e.id, e.lease, '23505', null) from unnest($1::bigint[], $2::uuid[]) as e (id, lease)`,
        async prepare(world, count) {
          const { ids, leases } = await running(world, count)
          return [ids, leases]
        },
      },
    ],
  },
  mend_sequences: {
    calls: [
      {
        what: 'where none is behind',
        sql: 'select pullgate.mend_sequences()',
        prepare: () => [],
        readsAll: 'the end of each lane',
      },
    ],
  },
  doctor: {
    calls: [
      {
        what: '',
        sql: 'select * from pullgate.doctor()',
        prepare: () => [],
        readsAll: 'the jobs set aside, and the end of each lane',
      },
    ],
  },
}
