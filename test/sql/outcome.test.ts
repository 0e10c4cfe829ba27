import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  byLease,
  complete,
  fail,
  publish,
  readJob,
  refusal,
  rows,
  runningJob,
  stateOf,
  value,
} from './jobs.ts'

const database = useDatabase()
let one: pg.Client
let two: pg.Client

beforeAll(async () => {
  one = await database.session()
  two = await database.session()
})

const completeById = (id: string, session = one) =>
  value(session, `select pullgate.complete($1, '{"by": "id"}')`, [id])
const failById = (id: string, session = one) => value(session, `select pullgate.fail($1, 'broke')`, [id])
const delivered = async (options = {}) => {
  const job = await runningJob(one, 'delivered', { ack: 'auto', ...options })
  await byLease(one, 'confirm', [job])
  return job
}

describe('complete and fail by id', () => {
  test('end a job in any state that is not final, once', async () => {
    const jobs = [
      await publish(one, 'outcome'),
      await publish(one, 'outcome', { delay: '1 hour' }),
      (await runningJob(one, 'running')).id,
      (await delivered()).id,
      (await delivered({ dedupe_key: 'k' })).id,
    ]
    for (const id of jobs) {
      expect([await completeById(id), await completeById(id)]).toEqual([true, false])
      expect(await readJob(one, id)).toMatchObject({
        state: 'succeeded',
        result: '{"by": "id"}',
        live: false,
      })
      expect((await refusal(one, 'select pullgate.fail($1, null)', [id])).code).toBe('PL007')
    }
    const failed = await runningJob(one, 'failing')
    expect([await failById(failed.id), await failById(failed.id)]).toEqual([true, false])
    expect(await readJob(one, failed.id)).toMatchObject({ state: 'failed', last_error: 'broke' })
    expect((await refusal(one, 'select pullgate.complete($1)', [failed.id])).code).toBe('PL007')
  })
  test('agree with an executor that says the same later, and refuse one that differs', async () => {
    const done = await runningJob(one, 'agree')
    await completeById(done.id)
    expect(await complete(one, done)).toMatchObject({ status: 'ok' })
    expect(await fail(one, done)).toMatchObject({ status: 'lost' })
    const failed = await runningJob(one, 'agree')
    await failById(failed.id)
    expect(await fail(one, failed)).toMatchObject({ status: 'ok', state: 'failed' })
    expect(await complete(one, failed)).toMatchObject({ status: 'lost' })
  })
  test('refuse a result that is not JSON with PL003, an unknown job with PL006', async () => {
    const id = await publish(one, 'outcome')
    expect((await refusal(one, `select pullgate.complete($1, '{')`, [id])).code).toBe('PL003')
    expect(await stateOf(one, id)).toBe('ready')
    for (const call of ['complete(999999)', `fail(999999, 'x')`, 'cancel(999999)', 'retry(999999)']) {
      expect((await refusal(one, `select pullgate.${call}`)).code).toBe('PL006')
    }
  })
})

describe('two outcomes for one delivered job at once', () => {
  const pairs = [
    ['complete by id', 'fail by id'],
    ['fail by id', 'complete by id'],
    ['complete', 'fail'],
    ['fail', 'complete'],
  ] as const
  const verbs = {
    'complete by id': completeById,
    'fail by id': failById,
    complete: (id: string, session: pg.Client) => complete(session, { id, lease: null }),
    fail: (id: string, session: pg.Client) => fail(session, { id, lease: null }),
  }
  test.each(pairs)('%s then %s: the first counts, the second is refused', async (first, second) => {
    for (const options of [{}, { dedupe_key: first }]) {
      const { id } = await delivered(options)
      await one.query('begin')
      await verbs[first](id, one)
      const late = verbs[second](id, two).then(
        (answer) => (answer as { status?: string }).status,
        (error: unknown) => (error as pg.DatabaseError).code,
      )
      await waitsForLock(database, two)
      await one.query('commit')
      expect(await late).toBe(second.endsWith('by id') ? 'PL007' : 'lost')
      expect(await stateOf(one, id)).toBe(first.startsWith('complete') ? 'succeeded' : 'failed')
    }
  })
})

describe('cancel', () => {
  test('ends at once what is not running, and says what it found', async () => {
    const cancel = (id: string) => value(one, `select pullgate.cancel($1, '')`, [id])
    const id = await publish(one, 'outcome')
    expect([await cancel(id), await cancel(id)]).toEqual(['cancelled', 'cancelled'])
    expect(await readJob(one, id)).toMatchObject({
      state: 'cancelled',
      cancel_reason: 'cancelled',
      live: false,
    })
    expect(await cancel((await delivered({ dedupe_key: 'c' })).id)).toBe('cancelled')
    const done = await runningJob(one, 'done')
    await complete(one, done)
    expect(await cancel(done.id)).toBe('succeeded')
  })
  test('frees the dedupe key', async () => {
    const id = await publish(one, 'freed', { dedupe_key: 'k' })
    await rows(one, 'select pullgate.cancel($1)', [id])
    expect(await publish(one, 'freed', { dedupe_key: 'k' })).not.toBe(id)
  })
  test('meets a claim: whichever commits first, the other sees it', async () => {
    const id = await publish(one, 'meet')
    await one.query('begin')
    await rows(one, 'select pullgate.cancel($1)', [id])
    const sub = await value(two, `select id from pullgate.subscribe('{meet}', null, 'explicit', 60, null)`)
    const claim = `select id, note from pullgate.claim(array[pullgate.topic_id('meet')], array[$1::uuid], '{1}', '{}', '{}')`
    expect(await rows(two, claim, [sub])).toEqual([{ id: null, note: 'left' }])
    await one.query('rollback')
    await two.query('begin')
    expect(await rows(two, claim, [sub])).toEqual([{ id, note: null }])
    const cancel = value(one, 'select pullgate.cancel($1)', [id])
    await waitsForLock(database, one)
    await two.query('commit')
    expect(await cancel).toBe('running')
  })
})
