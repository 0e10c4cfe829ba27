import { expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'

const database = useDatabase()

test('a published job is claimed once', async () => {
  const id = await database.value(`select pullgate.publish('jobs_a', '{"a":1}')`)
  const sub = await database.value(`select id from pullgate.subscribe('{jobs_a}', null, 'explicit', 60, null)`)
  const claim = `select id, job_spec from pullgate.claim(pullgate.topic_id('jobs_a'), $1, '{5}')`
  expect(await database.query(claim, [[sub]])).toEqual([{ id, job_spec: '{"a":1}' }])
  expect(await database.query(claim, [[sub]])).toEqual([])
})
