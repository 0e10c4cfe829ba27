import { expect, test } from 'vitest'
import { publish, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { noBackstop, useGateway } from '../support/gateway.ts'
import { jobOf, jobsOf } from '../support/http.ts'
import type { Job } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database, noBackstop)

test('a job whose transaction stays open while 1,000 later ones are claimed is delivered when it commits', async () => {
  const topic = 'late'
  const subscription = await gateway.subscribe(topic)
  const late = await database.session()
  await late.query('begin')
  const id = await publish(late, topic, { spec: '"late"' })
  const batches = Array.from({ length: 10 }, (_, n) => n)
  let claimed = 0
  let held: readonly Job[] = []
  for (const n of batches) {
    const specs = Array.from({ length: 100 }, (_unused, m) => String(n * 100 + m))
    await database.query('select pullgate.publish_many($1, $2::text[])', [topic, specs])
    const json = { complete: held.map(({ id: done, lease }) => ({ id: done, lease })) }
    held = jobsOf(await gateway.pull(subscription, { wait: 50, max: 100, json }))
    claimed += held.length
  }
  expect(claimed).toBe(1_000)
  const answer = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  await late.query('commit')
  expect(jobOf(await answer)).toMatchObject({ id, jobSpec: 'late', attempt: 1 })
  expect(await gateway.metric('pullgate_claimed_jobs_total', { cause: 'backstop' })).toBe(0)
})

test('jobs of a claim that rolls back can be claimed at once', async () => {
  const topic = 'rolled-back-claim'
  const subscription = await gateway.subscribe(topic)
  const ids = [await publish(database, topic), await publish(database, topic)]
  const other = await database.session()
  await other.query('begin')
  const taken = await other.query(
    `select id from pullgate.claim(array[pullgate.topic_id($1)], array[$2]::uuid[], array[2], '{}', '{}')`,
    [topic, subscription],
  )
  expect(taken.rows.map((row: { id: string }) => row.id)).toEqual(ids)
  expect((await gateway.pull(subscription, { wait: 0, max: 2 })).status).toBe(204)
  await other.query('rollback')
  const jobs = jobsOf(await gateway.pull(subscription, { wait: 0, max: 2 }))
  expect(jobs.map(({ id, attempt }) => [id, attempt])).toEqual(ids.map((id) => [id, 1]))
})

test('an open transaction of one publisher delays no other, of the same topic or elsewhere', async () => {
  const topic = 'first-of-its-topic'
  const subscription = await gateway.subscribe(topic)
  const open = await database.session()
  await open.query('begin')
  const unseen = await publish(open, topic)
  const id = await publish(database, topic)
  const job = jobOf(await gateway.pull(subscription, { wait: 0 }))
  expect(job.id).toBe(id)
  expect((await gateway.settle(job, 'complete')).status).toBe(200)
  await open.query('rollback')
  expect(await stateOf(database, id)).toBe('succeeded')
  expect((await gateway.pull(subscription, { wait: 0 })).status).toBe(204)
  expect((await gateway.request('GET', `/jobs/${unseen}`)).status).toBe(404)
})
