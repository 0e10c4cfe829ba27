import { expect, test } from 'vitest'
import { openDatabase } from '../../src/db/database.ts'
import { createQueueStore } from '../../src/db/queue-store.ts'
import { publish, rows } from '../sql/jobs.ts'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { gatewayFor, useGateway } from '../support/gateway.ts'
import { expectProblem } from '../support/http.ts'
import type { Answer } from '../support/http.ts'

// What a publish over HTTP answers when it adds no job: the dedupe key is taken, or it is a repetition.
const database = useDatabase()
const gateway = useGateway(database)

type Request = { readonly key?: string; readonly json?: Readonly<Record<string, unknown>> }
const post = (
  topic: string,
  { key, json = { jobSpec: { n: 1 } } }: Request,
  api = gateway,
): Promise<Answer> =>
  api.request('POST', `/topics/${topic}/jobs`, {
    json,
    ...(key === undefined ? {} : { headers: { 'Idempotency-Key': key } }),
  })
const jobsOf = (topic: string) =>
  database.value('select count(*)::int from pullgate.jobs where topic = $1', [topic])

test('a publish that adds a job is 201, one whose dedupe key is taken 200 with the id of the job that has it', async () => {
  const json = { jobSpec: 1, dedupeKey: 'k' }
  const before = await gateway.metric('pullgate_http_published_jobs_total')
  const first = await post('taken', { json })
  const second = await post('taken', { json })
  expect([first.status, second.status]).toEqual([201, 200])
  expect(second.body).toEqual(first.body)
  expect(second.headers.get('location')).toBe(`/jobs/${String(first.body.id)}`)
  expect(await gateway.metric('pullgate_http_published_jobs_total')).toBe(before + 1)
  await database.query('select pullgate.complete($1)', [first.body.id])
  expect((await post('taken', { json })).status).toBe(201)
})

test('the same Idempotency-Key and body add one job, whichever gateway is asked', async () => {
  const other = await gatewayFor(database)
  const first = await post('again', { key: 'k' })
  expect(first.status).toBe(201)
  for (const api of [gateway, other]) {
    const again = await post('again', { key: 'k' }, api)
    expect([again.status, again.body]).toEqual([200, first.body])
    expect(again.headers.get('location')).toBe(first.headers.get('location'))
  }
  // The key outlives its job.
  await database.query('select pullgate.complete($1)', [first.body.id])
  expect((await post('again', { key: 'k' })).body).toEqual(first.body)
  expect(await jobsOf('again')).toBe(1)
})

test('repetitions that come at the same time add one job, and all get its id', async () => {
  const other = await gatewayFor(database)
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) => post('together', { key: 'k' }, n % 2 === 0 ? gateway : other)),
  )
  expect(answers.map(({ status }) => status).toSorted()).toEqual([...Array<number>(19).fill(200), 201])
  expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1)
  expect(await jobsOf('together')).toBe(1)
})

test('the key with another body is 422 and adds nothing; another key or topic is another publish', async () => {
  const first = await post('other', { key: 'k' })
  for (const json of [{ jobSpec: { n: 2 } }, { jobSpec: { n: 1 }, priority: 1 }]) {
    expectProblem(await post('other', { key: 'k', json }), 422, 'idempotency-key-reused')
  }
  expect(await jobsOf('other')).toBe(1)
  const fresh = [
    await post('other', { key: 'K' }),
    await post('other2', { key: 'k' }),
    await post('other', {}),
  ]
  expect(fresh.map(({ status }) => status)).toEqual([201, 201, 201])
  expect(new Set([first, ...fresh].map(({ body }) => body.id)).size).toBe(4)
})

test('a publish that was refused leaves its key free', async () => {
  await database.query('select pullgate.configure(job_spec_max_bytes => 1024)')
  const json = { jobSpec: 'x'.repeat(2_000) }
  expectProblem(await post('refused', { key: 'k', json }), 413, 'job-spec-too-large')
  await database.query('select pullgate.configure(job_spec_max_bytes => 1048576)')
  expect((await post('refused', { key: 'k' })).status).toBe(201)
})

test('a repetition of a publish that found its dedupe key taken gets the same id, also after that job ended', async () => {
  const holder = await publish(database, 'both', { dedupe_key: 'd' })
  const json = { jobSpec: 1, dedupeKey: 'd' }
  const first = await post('both', { key: 'k', json })
  expect([first.status, first.body.id]).toEqual([200, holder])
  await database.query('select pullgate.complete($1)', [holder])
  const again = await post('both', { key: 'k', json })
  expect([again.status, again.body.id]).toEqual([200, holder])
})

test('a repetition waits for the first, and adds the job if that one is undone', async () => {
  const session = await database.session()
  await session.query('begin')
  await publish(session, 'undone', { dedupe_key: 'd' })
  const json = { jobSpec: 1, dedupeKey: 'd' }
  const answers = [post('undone', { key: 'k', json }), post('undone', { key: 'k', json })]
  for (;;) {
    const waiting = await database.value(
      `select count(*)::int from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%publish_keyed%'`,
    )
    if (waiting === 2) break
  }
  await session.query('rollback')
  const statuses = (await Promise.all(answers)).map(({ status }) => status)
  expect(statuses.toSorted()).toEqual([200, 201])
  expect(await jobsOf('undone')).toBe(1)
})

test('a key is free again when upkeep has forgotten it, a day later', async () => {
  const first = await post('day', { key: 'k' })
  await rows(
    database,
    `update pullgate.publish_key set created_at = created_at - interval '23 hours 59 minutes'`,
  )
  await rows(database, 'select pullgate.forget_publish_keys(100)')
  expect((await post('day', { key: 'k' })).body).toEqual(first.body)
  await rows(database, `update pullgate.publish_key set created_at = created_at - interval '2 minutes'`)
  expect(Number(await database.value('select pullgate.forget_publish_keys(100)'))).toBeGreaterThan(0)
  const second = await post('day', { key: 'k' })
  expect(second.status).toBe(201)
  expect(second.body).not.toEqual(first.body)
})

test('upkeep forgets all keys of more than a day ago, however many', async () => {
  const direct = openDatabase({
    ...{ url: database.url, applicationName: 'upkeep', poolMax: 2, emit: () => undefined },
    ...{ connectTimeoutMs: 30_000, statementTimeoutMs: 60_000 },
  })
  await rows(database, 'delete from pullgate.publish_key')
  await rows(
    database,
    `insert into pullgate.publish_key (key, request, created_at)
      select gen_random_uuid(), gen_random_uuid(), clock_timestamp() - make_interval(hours => 23 + 2 * (n % 2))
        from generate_series(1, 40001) n`,
  )
  await createQueueStore(direct).upkeep()
  await direct.close()
  expect(await database.value('select count(*)::int from pullgate.publish_key')).toBe(20_000)
  await rows(database, 'delete from pullgate.publish_key')
})

test('no body and no key is kept in the clear', async () => {
  await post('kept', { key: 'SECRET-key', json: { jobSpec: 'SECRET-spec' } })
  const kept = await rows(database, 'select k::text as row from pullgate.publish_key k')
  expect(kept.length).toBeGreaterThan(0)
  expect(JSON.stringify(kept)).not.toContain('SECRET')
})

test('a key that is none, or where no key can be honoured, is refused', async () => {
  const headers = { 'Idempotency-Key': 'k' }
  const refusals = [
    await post('bad', { key: 'a b' }),
    await post('bad', { key: 'x'.repeat(256) }),
    await gateway.request('POST', '/subscriptions', { json: { topic: 'bad' }, headers }),
    await gateway.request('POST', '/jobs/1/retry', { headers }),
  ]
  for (const answer of refusals) {
    expectProblem(answer, 400, 'invalid-request')
    expect(answer.body.errors).toMatchObject([{ field: 'Idempotency-Key' }])
  }
  // By its name it is the same subscription anyway.
  const named = { json: { topic: 'bad', name: 'n' }, headers }
  expect((await gateway.request('POST', '/subscriptions', named)).status).toBe(200)
})

test('waits for nobody: a key that another transaction holds ends its own publish alone', async () => {
  const session = await database.session()
  await session.query('begin')
  await rows(session, `select * from pullgate.publish_keyed($1, $1, 'held', '1')`, [
    '00000000-0000-4000-8000-000000000001',
  ])
  const second = await database.session()
  const waiting = rows(second, `select * from pullgate.publish_keyed($1, $1, 'held', '1')`, [
    '00000000-0000-4000-8000-000000000001',
  ])
  await waitsForLock(database, second)
  expect((await post('held', { key: 'k' })).status).toBe(201)
  await session.query('commit')
  expect(await waiting).toMatchObject([{ is_new: false }])
})
