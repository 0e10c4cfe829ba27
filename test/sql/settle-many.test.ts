import type pg from 'pg'
import { beforeAll, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  byLease,
  complete,
  endLease,
  readJob,
  refusal,
  release,
  rows,
  runDue,
  runningJob,
  value,
} from './jobs.ts'

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

const failMany = (runner: pg.Client, elements: readonly Element[], retry = true) =>
  rows(runner, `select * from pullgate.settle_fails($1, $2, $3, $4, $5)`, [
    elements.map(({ id }) => id),
    elements.map(({ lease }) => lease),
    elements.map((_, index) => `error ${index}`),
    elements.map(() => retry),
    elements.map((_, index) => index * 60),
  ])
const releaseMany = (runner: pg.Client, elements: readonly Element[]) =>
  rows(runner, 'select * from pullgate.settle_releases($1, $2, $3)', [
    elements.map(({ id }) => id),
    elements.map(({ lease }) => lease),
    elements.map((_, index) => index * 60),
  ])
const heartbeatMany = (runner: pg.Client, elements: readonly (Element & { seconds?: number })[]) =>
  rows<{ status: string; lease_ends_at: Date | null; cancel_reason: string | null }>(
    runner,
    'select * from pullgate.heartbeats($1, $2, $3, $4)',
    [
      elements.map(({ id }) => id),
      elements.map(({ lease }) => lease),
      elements.map(({ seconds }) => seconds ?? null),
      elements.map((_, index) => String(index)),
    ],
  )

test('many fails at once give what each alone would give, in the order given', async () => {
  const [two, one, last] = [
    await runningJob(session, 'fails'),
    await runningJob(session, 'fails'),
    await runningJob(session, 'fails', { max_attempts: 1 }),
  ]
  const auto = await runningJob(session, 'fails-auto', { ack: 'auto' })
  await byLease(session, 'confirm', [auto])
  const told = { id: auto.id, lease: null }
  const answers = await failMany(session, [one, { id: '999999', lease: noLease }, two, last, told, told, one])
  const states = answers.map(({ status, state }) => [status, state])
  const failed = ['ok', 'failed']
  const again = ['ok', 'ready']
  expect(states).toEqual([again, ['unknown', null], ['ok', 'scheduled'], failed, failed, failed, again])
  expect(await readJob(session, one.id)).toMatchObject({ last_error: 'error 0', attempts: 1 })
  expect(await readJob(session, last.id)).toMatchObject({
    last_error: 'error 3',
    settled: 'fail',
    live: false,
  })
  expect(await readJob(session, auto.id)).toMatchObject({ last_error: 'error 4', state: 'failed' })
})

test('many releases at once give what each alone would give, in the order given', async () => {
  const [two, one] = [await runningJob(session, 'releases'), await runningJob(session, 'releases')]
  const stale = await runningJob(session, 'releases')
  const answers = await releaseMany(session, [one, { id: stale.id, lease: noLease }, two, one])
  const states = answers.map(({ status, state }) => [status, state])
  expect(states).toEqual([
    ['ok', 'ready'],
    ['lost', null],
    ['ok', 'scheduled'],
    ['ok', 'ready'],
  ])
  expect(await readJob(session, two.id)).toMatchObject({ state: 'scheduled', attempts: 0 })
})

test('many heartbeats at once give what each alone would give, in the order given', async () => {
  const lease = { lease: 30 }
  const [ended, plain, longer, shorter, cancelled, stale] = [
    await runningJob(session, 'beats', lease),
    await runningJob(session, 'beats', lease),
    await runningJob(session, 'beats', lease),
    await runningJob(session, 'beats', lease),
    await runningJob(session, 'beats', lease),
    await runningJob(session, 'beats', lease),
  ]
  await endLease(session, ended.id)
  await runDue(session)
  await rows(session, `select pullgate.cancel($1, 'enough')`, [cancelled.id])
  const now = await value<Date>(session, 'select clock_timestamp()')
  const answers = await heartbeatMany(session, [
    plain,
    { id: '999999', lease: noLease },
    { ...longer, seconds: 600 },
    { ...shorter, seconds: 10 },
    cancelled,
    { id: stale.id, lease: noLease },
    ended,
    { id: stale.id, lease: null },
    plain,
  ])
  expect(answers.map(({ status }) => status)).toEqual([
    ...['ok', 'unknown', 'ok', 'ok', 'ok', 'lost', 'ok', 'lost', 'ok'],
  ])
  const seconds = answers.map(
    ({ lease_ends_at: at }) => at && Math.floor((at.getTime() - now.getTime()) / 1e4),
  )
  expect(seconds).toEqual([3, null, 60, 1, 3, null, 3, null, 3])
  expect(answers.map(({ cancel_reason }) => cancel_reason)).toEqual([
    ...[null, null, null, null, 'enough', null, null, null, null],
  ])
  expect(await readJob(session, ended.id)).toMatchObject({ state: 'running', progress: '6' })
  const looked = 'select lease_check_at = lease_ends_at as whole from pullgate.job where id = $1'
  expect(await value<boolean>(session, looked, [shorter.id])).toBe(true)
  expect(await value<boolean>(session, looked, [longer.id])).toBe(false)
})

test.each([
  ['fails', failMany],
  ['releases', releaseMany],
  ['heartbeats', heartbeatMany],
] as const)('two batches of %s of the same jobs in opposite order do not deadlock', async (verb, many) => {
  const jobs = [
    await runningJob(session, `cross ${verb}`.replace(' ', '-')),
    await runningJob(session, 'cross-2'),
  ]
  // The first row that a batch comes to is held, so that the other batch waits behind it with nothing locked.
  await session.query('begin')
  await session.query('select from pullgate.job where id = $1 for update', [jobs[0]?.id])
  const second = many(other, jobs.toReversed())
  await waitsForLock(database, other)
  expect(await many(session, jobs)).toMatchObject([{ status: 'ok' }, { status: 'ok' }])
  await session.query('commit')
  expect(await second).toMatchObject([{ status: 'ok' }, { status: 'ok' }])
})

test('none at all is no error', async () => {
  for (const many of [settle, failMany, releaseMany, heartbeatMany])
    expect(await many(session, [])).toEqual([])
})

test('a job that somebody has locked refuses a call for many after a while, and not one for itself alone', async () => {
  const [locked, free] = [await runningJob(session, 'locked'), await runningJob(session, 'locked')]
  await other.query('begin')
  await other.query('select from pullgate.job where id = $1 for update', [locked.id])
  const beats = `select status from pullgate.heartbeats($1::bigint[], $2::uuid[],
    array_fill(null::integer, array[$3::integer]), array_fill(null::text, array[$3::integer]))`
  const values = (...jobs: Element[]) => [
    jobs.map(({ id }) => id),
    jobs.map(({ lease }) => lease),
    jobs.length,
  ]
  const beat = (job: Element) => rows(session, beats, values(job))
  expect(await refusal(session, beats, values(locked, free))).toMatchObject({ code: '55P03' })
  expect(await beat(free)).toEqual([{ status: 'ok' }])
  const waiting = beat(locked)
  await waitsForLock(database, session)
  await other.query('rollback')
  expect(await waiting).toEqual([{ status: 'ok' }])
})
