import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  claimOne,
  complete,
  counts,
  endOffer,
  fail,
  heartbeat,
  publish,
  readJob,
  release,
  rows,
  runDue,
  runningJob,
  stateOf,
  subscribe,
  value,
} from './jobs.ts'

/** Two-phase delivery: offers that end without having been accepted. */
const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})

let count = 0
const topic = () => `ended_${++count}`
describe('an offer that ends without having been accepted', () => {
  test.each(['requeue', 'orphan', 'fail'])(
    'is ready again at once under %s: no attempt spent, the delivery counted',
    async (on_lost) => {
      const name = topic()
      const job = await runningJob(session, name, { offer: 15, on_lost, max_attempts: 1 })
      const id = await value(session, 'select pullgate.topic_id($1)', [name])
      expect(await endOffer(session, job.id)).toMatchObject({
        topics: [id],
        leases_lost: {},
        offers_ended: { ready: 1 },
      })
      expect(await counts(session, job.id)).toEqual(['ready', 0, 1])
      expect((await readJob(session, job.id))['log']).toMatchObject([
        { outcome: 'not accepted', state: 'ready' },
      ])
      const next = await claimOne(session, name, await subscribe(session, name))
      expect(next).toMatchObject({ id: job.id, attempt: 1, redelivered: true })
    },
  )
  test('comes back before jobs that were never offered, and wakes their executors', async () => {
    const name = topic()
    const job = await runningJob(session, name, { offer: 15 })
    await publish(session, name)
    await endOffer(session, job.id)
    expect((await claimOne(session, name, await subscribe(session, name))).id).toBe(job.id)
  })
  test('20 in a row: the job is failed as undeliverable, and can be retried with as many again', async () => {
    const name = topic()
    const id = await publish(session, name, { max_attempts: 3 })
    const subscription = await subscribe(session, name, { offer: 5 })
    const offerAll = async () => {
      for (let offer = 1; offer <= 20; offer++) {
        expect(await stateOf(session, id)).toBe('ready')
        await claimOne(session, name, subscription)
        expect(await endOffer(session, id)).toMatchObject({
          offers_ended: { [offer < 20 ? 'ready' : 'failed']: 1 },
        })
      }
    }
    await offerAll()
    const failed = await readJob(session, id)
    expect(failed).toMatchObject({
      ...{ state: 'failed', attempts: 0, deliveries: 20, live: false },
      last_error: 'undeliverable: 20 offers in a row were not accepted',
    })
    expect((failed['log'] as object[]).at(-1)).toMatchObject({ outcome: 'undeliverable', state: 'failed' })
    expect(await value(session, 'select pullgate.retry($1)', [id])).toBe('ready')
    await offerAll()
    expect(await counts(session, id)).toEqual(['failed', 0, 40])
  })
  test('one that is accepted in between begins the row anew, as does a claim that needs no accepting', async () => {
    const name = topic()
    const id = await publish(session, name)
    const subscription = await subscribe(session, name, { offer: 5 })
    const unaccepted = async () => (await readJob(session, id))['unaccepted']
    const offerTwice = async () => {
      for (let offer = 0; offer < 2; offer++) {
        await claimOne(session, name, subscription)
        await endOffer(session, id)
      }
      expect(await unaccepted()).toBe(2)
    }
    await offerTwice()
    await heartbeat(session, await claimOne(session, name, subscription))
    expect(await unaccepted()).toBe(0)
    await endOffer(session, id)
    await offerTwice()
    await release(session, await claimOne(session, name, await subscribe(session, name)))
    expect(await unaccepted()).toBe(0)
    expect(await counts(session, id)).toEqual(['ready', 1, 6])
  })
  test('releases have no ceiling', async () => {
    const name = topic()
    const subscription = await subscribe(session, name, { offer: 5 })
    const id = await publish(session, name)
    for (let time = 0; time < 25; time++) await release(session, await claimOne(session, name, subscription))
    await claimOne(session, name, subscription)
    await endOffer(session, id)
    expect(await counts(session, id)).toEqual(['ready', 0, 26])
  })
  test('lets a job expire whose deadline has passed meanwhile', async () => {
    const job = await runningJob(session, topic(), { offer: 15, expires_at: '2099-01-01T00:00:00Z' })
    await rows(session, `update pullgate.job set expires_at = now() - interval '1 minute' where id = $1`, [
      job.id,
    ])
    expect(await stateOf(session, job.id)).toBe('offered')
    await endOffer(session, job.id)
    await runDue(session)
    expect(await stateOf(session, job.id)).toBe('expired')
  })
})

describe('after the end of an offer, until the job is claimed again', () => {
  const ended = async (options = {}) => {
    const job = await runningJob(session, topic(), { offer: 15, ...options })
    await endOffer(session, job.id)
    expect(await counts(session, job.id)).toEqual(['ready', 0, 1])
    return job
  }
  test('a heartbeat still accepts it', async () => {
    const job = await ended()
    expect(await heartbeat(session, job, 30)).toMatchObject({ status: 'ok' })
    expect(await counts(session, job.id)).toEqual(['running', 1, 1])
    await endOffer(session, job.id)
    expect(await counts(session, job.id)).toEqual(['ready', 1, 1])
  })
  test('a settle still counts', async () => {
    const [completed, failed, released] = [await ended(), await ended(), await ended()]
    expect(await complete(session, completed)).toMatchObject({ status: 'ok' })
    expect(await counts(session, completed.id)).toEqual(['succeeded', 1, 1])
    expect(await fail(session, failed, { after: 0 })).toMatchObject({ status: 'ok', state: 'ready' })
    expect(await counts(session, failed.id)).toEqual(['ready', 1, 1])
    expect(await release(session, released)).toMatchObject({ status: 'ok', state: 'ready' })
    expect(await counts(session, released.id)).toEqual(['ready', 0, 1])
  })
  test('then neither does: 409', async () => {
    const name = topic()
    const job = await runningJob(session, name, { offer: 15 })
    await endOffer(session, job.id)
    await claimOne(session, name, await subscribe(session, name, { offer: 15 }))
    const before = await readJob(session, job.id)
    for (const verb of [heartbeat, complete, fail, release]) {
      expect(await verb(session, job)).toMatchObject({ status: 'lost' })
    }
    expect(await readJob(session, job.id)).toEqual(before)
  })
})
