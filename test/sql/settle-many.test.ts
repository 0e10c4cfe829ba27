import type pg from 'pg'
import { beforeAll, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { byLease, complete, readJob, release, rows, runningJob } from './jobs.ts'

const database = useDatabase()
let session: pg.Client
let other: pg.Client
beforeAll(async () => {
  session = await database.session()
  other = await database.session()
})

type Element = { id: string; lease: string | null; result?: string | null }
const settle = (runner: pg.Client, elements: readonly Element[]) =>
  rows(runner, 'select * from pullgate.settle_completes($1, $2, $3)', [
    elements.map(({ id }) => id),
    elements.map(({ lease }) => lease),
    elements.map(({ result }) => result ?? null),
  ])

const ok = { status: 'ok', state: 'succeeded' }
const lost = { status: 'lost', state: null }
const unknown = { status: 'unknown', state: null }
const noLease = '00000000-0000-4000-8000-000000000000'

test('many completes at once give what each alone would give, in the order given', async () => {
  const one = await runningJob(session, 'many')
  const two = await runningJob(session, 'many')
  const done = await runningJob(session, 'many')
  const stale = await runningJob(session, 'many')
  const released = await runningJob(session, 'many')
  await complete(session, done, '"before"')
  await release(session, released)
  const auto = await runningJob(session, 'many-auto', { ack: 'auto' })
  await byLease(session, 'confirm', [auto])
  const answers = await settle(session, [
    { ...two, result: '{"n": 2}' },
    { id: '999999', lease: noLease },
    { id: stale.id, lease: noLease },
    { ...one, result: '{"n":  1}' },
    done,
    { id: auto.id, lease: null, result: '3' },
    released,
  ])
  expect(answers).toEqual([ok, unknown, lost, ok, ok, ok, lost])
  const results = await Promise.all(
    [one, two, done, auto].map(async ({ id }) => (await readJob(session, id))['result']),
  )
  expect(results).toEqual(['{"n":  1}', '{"n": 2}', '"before"', '3'])
  expect(await readJob(session, stale.id)).toMatchObject({ state: 'running' })
  expect(await readJob(session, released.id)).toMatchObject({ state: 'ready' })
})

test('a job named twice is completed once: the same lease again is ok, another is lost', async () => {
  const job = await runningJob(session, 'twice')
  const answers = await settle(session, [{ id: job.id, lease: noLease }, job, job])
  expect(answers).toEqual([lost, ok, ok])
  const found = await rows(session, 'select id from pullgate.history where id = $1', [job.id])
  expect(found).toHaveLength(1)
})

test("one job's lease does not complete another job", async () => {
  const [one, two] = [await runningJob(session, 'mixed'), await runningJob(session, 'mixed')]
  const answers = await settle(session, [{ id: one.id, lease: two.lease }, two])
  expect(answers).toEqual([lost, ok])
  expect(await readJob(session, one.id)).toMatchObject({ state: 'running' })
})

test('two batches of the same jobs in opposite order wait for each other, and do not deadlock', async () => {
  const jobs = [await runningJob(session, 'cross'), await runningJob(session, 'cross')]
  await session.query('begin')
  expect(await settle(session, jobs)).toEqual([ok, ok])
  const second = settle(other, jobs.toReversed())
  await waitsForLock(database, other)
  await session.query('commit')
  expect(await second).toEqual([ok, ok])
})

test('none at all is no error', async () => {
  expect(await settle(session, [])).toEqual([])
})
