import type pg from 'pg'
import { beforeAll, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { publish, refusal, row, rows, value } from './jobs.ts'

const database = useDatabase()
let one: pg.Client
let two: pg.Client
beforeAll(async () => {
  one = await database.session()
  two = await database.session()
})
type Once = { id: string; is_new: boolean }
const once = (session: pg.Client, topic: string, options = `, dedupe_key => 'k'`) =>
  row<Once>(session, `select * from pullgate.publish_once('${topic}', '1'${options})`)

test('says whether it added the job or found its dedupe key taken', async () => {
  const first = await once(one, 'once')
  expect(first.is_new).toBe(true)
  for (const session of [one, two])
    expect(await once(session, 'once')).toEqual({ id: first.id, is_new: false })
  expect((await once(one, 'once', '')).is_new).toBe(true)
  expect((await once(one, 'once', `, dedupe_key => 'other'`)).is_new).toBe(true)
  await rows(one, 'select pullgate.complete($1)', [first.id])
  const second = await once(two, 'once')
  expect(second.is_new).toBe(true)
  expect(second.id).not.toBe(first.id)
})

test('knows a key that this session has just taken, also at a priority that is new to the topic', async () => {
  const id = await publish(one, 'priorities', { dedupe_key: 'k' })
  expect(await once(one, 'priorities', `, dedupe_key => 'k', priority => 7`)).toEqual({ id, is_new: false })
  await one.query('begin')
  const inside = await once(one, 'inside')
  expect(inside.is_new).toBe(true)
  expect(await once(one, 'inside')).toEqual({ id: inside.id, is_new: false })
  expect(await once(one, 'inside', `, dedupe_key => 'k', priority => 3`)).toEqual({
    id: inside.id,
    is_new: false,
  })
  await one.query('commit')
})

test('waits for a concurrent publisher of the key, and tells the truth of what became of it', async () => {
  for (const end of ['commit', 'rollback']) {
    await one.query('begin')
    const first = await once(one, end)
    const waiting = once(two, end)
    await waitsForLock(database, two)
    await one.query(end)
    const { id, is_new } = await waiting
    expect([id === first.id, is_new]).toEqual(end === 'commit' ? [true, false] : [false, true])
  }
})

test('takes what publish takes and refuses what it refuses', async () => {
  expect((await refusal(one, `select pullgate.publish_once('a/b', '1')`)).code).toBe('PL001')
  expect((await refusal(one, `select pullgate.publish_once('once', '{')`)).code).toBe('PL003')
  expect((await refusal(one, `select pullgate.publish_once('once', '1', priority => 11)`)).code).toBe('PL005')
  const { id } = await once(
    one,
    'options',
    `, priority => 2, delay => '1 hour', max_attempts => 3, on_lost => 'fail'`,
  )
  expect(
    await row(one, 'select priority, state, max_attempts, on_lost from pullgate.jobs where id = $1', [id]),
  ).toEqual({ priority: 2, state: 'scheduled', max_attempts: 3, on_lost: 'fail' })
})

test('forget_publish_keys takes the oldest first, at most as many as asked, and skips what is locked', async () => {
  await rows(
    one,
    `insert into pullgate.publish_key (key, request, created_at)
      select gen_random_uuid(), gen_random_uuid(), clock_timestamp() - make_interval(hours => n)
        from generate_series(20, 30) n`,
  )
  expect(await value<number>(one, 'select pullgate.forget_publish_keys(2)')).toBe(2)
  const oldest = `select max(extract(hour from clock_timestamp() - created_at) + 24
    * extract(day from clock_timestamp() - created_at))::int from pullgate.publish_key`
  expect(await value<number>(one, oldest)).toBe(28)
  await one.query('begin')
  await one.query('select from pullgate.publish_key order by created_at limit 1 for update')
  expect(await value<number>(two, 'select pullgate.forget_publish_keys(100)')).toBe(4)
  await one.query('rollback')
  expect(await value<number>(two, 'select pullgate.forget_publish_keys(100)')).toBe(1)
  expect(await value(two, 'select count(*) from pullgate.publish_key')).toBe('4')
})
