import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { rows, value } from './jobs.ts'
import { explainedSession } from './plans.ts'
import type { Explained } from './plans.ts'

/** The plans of keyed publishes and of forgetting keys, whatever the statistics of pullgate.publish_key say. */
const database = useDatabase()
const fill = `insert into pullgate.publish_key (key, request, job_id, created_at)
  select gen_random_uuid(), gen_random_uuid(), n, clock_timestamp() - interval '30 hours' * n / 5000
    from generate_series(1, 5000) n`
let explained: Explained

describe.each([
  ['analysed while it was empty', `analyze pullgate.publish_key; ${fill}`],
  ['never analysed', fill],
  ['analysed full', `${fill}; analyze pullgate.publish_key`],
  ['analysed full, then emptied', `${fill}; analyze pullgate.publish_key; delete from pullgate.publish_key`],
])('%s', (_, prepare) => {
  beforeAll(async () => {
    await database.query('truncate pullgate.publish_key')
    await database.query(prepare)
    // A fresh session plans on these statistics.
    explained = await explainedSession(database)
  })
  test('every statement goes by an index and none sorts', async () => {
    const { session, plans } = explained
    const key = await value(session, 'select gen_random_uuid()')
    for (const is_new of [true, false]) {
      const sql = `select is_new from pullgate.publish_keyed($1, $1, 'plans', '1')`
      expect(await rows(session, sql, [key])).toEqual([{ is_new }])
    }
    await rows(session, 'select pullgate.forget_publish_keys(1000)')
    const own = plans.filter((plan) => plan.includes('publish_key'))
    expect(own.length).toBeGreaterThanOrEqual(5)
    for (const plan of own) {
      expect(plan).not.toMatch(/Seq Scan on publish_key/)
      expect(plan).not.toMatch(/\b(Sort|Hash Join|Merge Join|Bitmap Heap Scan)\b/)
    }
    const forgets = own.filter((plan) => plan.includes('delete from pullgate.publish_key'))
    expect(forgets).toHaveLength(1)
    expect(forgets[0]).toMatch(/Index (Only )?Scan using publish_key_created_at/)
    expect(forgets[0]).toMatch(/Index Scan using publish_key_pkey/)
  })
})
