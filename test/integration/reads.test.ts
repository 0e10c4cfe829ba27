import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { useGateway } from '../support/gateway.ts'
import { expectProblem, jobOf } from '../support/http.ts'

// What GET says of topics and jobs.
const database = useDatabase()
const gateway = useGateway(database)
const topic = async (name: string) => (await gateway.request('GET', `/topics/${name}`)).body

test('a paused topic wants executors for what runs, not for what is ready', async () => {
  const subscription = await gateway.subscribe('paused')
  for (let job = 0; job < 3; job += 1) await publish(database, 'paused')
  jobOf(await gateway.pull(subscription, { wait: 5 }))
  expect(await topic('paused')).toMatchObject({ jobs: { ready: 2, running: 1 }, desiredExecutors: 3 })
  await database.query(`select pullgate.configure_topic('paused', paused => true)`)
  expect(await topic('paused')).toMatchObject({ paused: true, jobs: { ready: 2 }, desiredExecutors: 1 })
  await database.query(`select pullgate.configure_topic('paused', paused => false)`)
  expect(await topic('paused')).toMatchObject({ paused: false, desiredExecutors: 3 })
})

test('leaseExpiresAt is there while the job runs, and gone when it is released', async () => {
  const subscription = await gateway.subscribe('released')
  const id = await publish(database, 'released')
  const job = jobOf(await gateway.pull(subscription, { wait: 5 }))
  expect((await gateway.job(id)).leaseExpiresAt).toEqual(expect.any(String))
  await gateway.settle(job, 'release')
  expect(await gateway.job(id)).toMatchObject({ state: 'ready', leaseExpiresAt: null })
})

test('a retry that does not apply says what it is for', async () => {
  const id = await publish(database, 'retried')
  await database.query('select pullgate.complete($1)', [id])
  const answer = await gateway.request('POST', `/jobs/${id}/retry`)
  expectProblem(answer, 409, 'job-ended')
  expect(answer.body.detail).toContain('Retry is for failed, orphaned, cancelled and expired jobs')
})
