import { beforeAll, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { publish } from './jobs.ts'
import { explainedSession } from './plans.ts'

/** The plans of a publisher that has many topics, in a database of which nothing is analysed yet. */
const database = useDatabase()

let plans: string[] = []
beforeAll(async () => {
  await database.query(
    `select pullgate.publish('topic' || n, '1') from generate_series(1, 500) n;
     select pullgate.configure_topic('topic' || n, max_attempts => 3) from generate_series(1, 500) n`,
  )
  const explained = await explainedSession(database)
  await publish(explained.session, 'topic500')
  await publish(explained.session, 'topic501')
  await publish(explained.session, 'topic501', { dedupe_key: 'one' })
  await publish(explained.session, 'topic501', { dedupe_key: 'one' })
  plans = explained.plans
})

test('a publish scans neither lanes nor topics nor jobs', () => {
  const inserts = plans.filter((plan) => plan.includes('insert into pullgate.job'))
  expect(inserts.length).toBeGreaterThanOrEqual(4)
  for (const plan of inserts) {
    expect(plan).toContain('Index Scan using lane_topic_priority on lane')
    expect(plan).toContain('Index Scan using topic_pkey on topic')
  }
  for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (pullgate\.)?(job|topic|armed)\b/)
})

test('only with a dedupe key it looks for the job that has it', () => {
  expect(plans.filter((plan) => plan.includes('j.dedupe_key = publish.dedupe_key'))).toHaveLength(1)
})
