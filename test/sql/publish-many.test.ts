import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { claim, publish, readJob, rows, runningJob, stateOf, subscribe, value } from './jobs.ts'
import { copyFrom } from './watching.ts'

const database = useDatabase()
let one: pg.Client
let two: pg.Client

beforeAll(async () => {
  one = await database.session()
  two = await database.session()
})

const ids = async (sql: string, values: unknown[] = [], session: pg.Client = one) =>
  (await rows<{ id: string }>(session, `select id from ${sql} as id`, values)).map((found) => found.id)

describe('a dedupe key', () => {
  const options = { dedupe_key: 'k' }

  test('gives the first id until that job has ended, per topic', async () => {
    const first = await publish(one, 'dedupe', options)
    expect(await publish(one, 'dedupe', { ...options, spec: '2', priority: 1 })).toBe(first)
    expect(await publish(one, 'dedupe2', options)).not.toBe(first)
    expect(await publish(one, 'dedupe', { dedupe_key: 'other' })).not.toBe(first)
    const subscription = await subscribe(one, 'dedupe')
    await claim(one, 'dedupe', subscription, 5)
    expect(await publish(one, 'dedupe', options)).toBe(first)
    await rows(one, `select pullgate.complete($1)`, [first])
    expect(await publish(one, 'dedupe', options)).not.toBe(first)
  })
  test('is waited for by a concurrent publisher, who gets the id', async () => {
    await one.query('begin')
    const first = await publish(one, 'wait', options)
    const second = publish(two, 'wait', options)
    await waitsForLock(database, two)
    await one.query('commit')
    expect(await second).toBe(first)
  })
  test('is free for the one who waits when the first rolls back', async () => {
    await one.query('begin')
    const first = await publish(one, 'undo', options)
    const second = publish(two, 'undo', options)
    await waitsForLock(database, two)
    await one.query('rollback')
    expect(await second).not.toBe(first)
    expect(await stateOf(one, await second)).toBe('ready')
  })
  test('is free for the one who waits for the end of its job', async () => {
    const { id } = await runningJob(one, 'ends', options)
    await one.query('begin')
    await rows(one, 'select pullgate.complete($1)', [id])
    const second = publish(two, 'ends', options)
    await waitsForLock(database, two)
    await one.query('commit')
    expect(await second).not.toBe(id)
    expect(await stateOf(one, id)).toBe('succeeded')
  })
  test.each(['repeatable read', 'serializable'])('held by a later commit ends %s in 40001', async (level) => {
    await two.query(`begin isolation level ${level}`)
    await two.query('select 1 from pullgate.job')
    await publish(one, `old ${level}`.replaceAll(' ', '_'), options)
    const late = publish(two, `old ${level}`.replaceAll(' ', '_'), options)
    await expect(late).rejects.toMatchObject({ code: '40001' })
    await two.query('rollback')
  })
})

describe('publish_many', () => {
  test('returns ids in the order of the specs, and hands them out so', async () => {
    const specs = Array.from({ length: 500 }, (_, index) => String(index))
    const published = await ids(`pullgate.publish_many('many', $1::text[], priority => 2)`, [specs])
    expect(published.length).toBe(500)
    expect(published.map(Number)).toEqual(published.map(Number).sort((a, b) => a - b))
    const subscription = await subscribe(one, 'many')
    const jobs = await claim(one, 'many', subscription, 500)
    expect(jobs.map((job) => [job.id, job.job_spec])).toEqual(
      specs.map((spec, index) => [published[index], spec]),
    )
  })
  test('takes jsonb, and nothing at all', async () => {
    const [id = ''] = await ids(`pullgate.publish_many('many', array['{"b":1, "a":2}'::jsonb])`)
    expect((await readJob(one, id))['job_spec']).toBe('{"a": 2, "b": 1}')
    expect(await ids(`pullgate.publish_many('many', '{}'::text[])`)).toEqual([])
  })
  test('with dedupe_keys returns each id at its spec, old ones too', async () => {
    const old = await publish(one, 'keys', { dedupe_key: 'b' })
    const published = await ids(
      `pullgate.publish_many('keys', '{1,2,3,4,5}'::text[], dedupe_keys => '{z,b,null,a,z}', delay => '1 hour')`,
    )
    expect(published[1]).toBe(old)
    expect(published[4]).toBe(published[0])
    const specs: unknown[] = []
    for (const id of published) specs.push((await readJob(one, id))['job_spec'])
    expect(specs).toEqual(['1', '{}', '3', '4', '1'])
    expect(await stateOf(one, published[2] ?? '')).toBe('scheduled')
  })
  test('of the same keys in opposite order waits and does not deadlock', async () => {
    const keys = Array.from({ length: 30 }, (_, index) => `k${index + 10}`)
    const sql = `pullgate.publish_many('cross', $1::text[], dedupe_keys => $2)`
    const specs = keys.map(() => '1')
    const third = await database.session()
    await third.query('begin')
    await publish(third, 'cross', { dedupe_key: 'k25' })
    // Both get as far as they can, then the key between them becomes free.
    const forward = ids(sql, [specs, keys])
    await waitsForLock(database, one)
    const backward = ids(sql, [specs, [...keys].reverse()], two)
    await waitsForLock(database, two)
    await third.query('rollback')
    expect((await backward).reverse()).toEqual(await forward)
  })
})

describe('the inbox', () => {
  test('insert publishes each row and returns its id', async () => {
    const inserted = await rows<{ id: string }>(
      one,
      `insert into pullgate.inbox (topic, job_spec, priority, delay, dedupe_key)
        values ('inbox', '{"a" :1}', null, null, null), ('inbox', '2', 4, '1 hour', 'k'), ('inbox', '3', 4, null, 'k')
        returning id`,
    )
    const [first, second, third] = inserted.map((found) => found.id)
    expect(await readJob(one, first ?? '')).toMatchObject({
      job_spec: '{"a" :1}',
      priority: 0,
      state: 'ready',
    })
    expect(await readJob(one, second ?? '')).toMatchObject({ job_spec: '2', priority: 4, state: 'scheduled' })
    expect(third).toBe(second)
    expect(await rows(one, 'select * from pullgate.inbox')).toEqual([])
  })
  test('COPY publishes each line', async () => {
    const data = Array.from({ length: 100 }, (_, index) => `copied\t{"n": ${index}}\n`).join('')
    await copyFrom(one, 'copy pullgate.inbox (topic, job_spec) from stdin', data)
    const subscription = await subscribe(one, 'copied')
    const jobs = await claim(one, 'copied', subscription, 200)
    expect(jobs.map((job) => job.job_spec)).toEqual(
      Array.from({ length: 100 }, (_, index) => `{"n": ${index}}`),
    )
    expect(await value(one, `select count(*) from pullgate.jobs where topic = 'copied'`)).toBe('100')
  })
})
