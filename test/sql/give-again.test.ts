import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  byLease,
  complete,
  endLease,
  fail,
  heartbeat,
  publish,
  readJob,
  release,
  rows,
  runDue,
  stateOf,
  subscribe,
  type Claimed,
  type Held,
  type PublishOptions,
  type SubscribeOptions,
} from './jobs.ts'

const database = useDatabase()
let session: pg.Client
let other: pg.Client

beforeAll(async () => {
  session = await database.session()
  other = await database.session()
})

let count = 0
const keyOf = (name: string) =>
  `00000000-0000-4000-8000-${String(name.length).padStart(2, '0')}${String(++count).padStart(10, '0')}`

type Again = Claimed & Held & { pull: number; offered: boolean; hold_seconds: number; topic_id: string }

const again = (runner: pg.Client, keys: string[], counts = keys.map(() => 100)) =>
  rows<Again>(runner, 'select * from pullgate.give_again($1, $2)', [keys, counts])

async function claimWithKey(
  name: string,
  subscription: string,
  key: string,
  wanted = 1,
): Promise<(Claimed & Held)[]> {
  return rows(
    session,
    `select * from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], array[$3::integer], '{}', '{}',
      p_keys => array[$4::uuid]) where id is not null`,
    [name, subscription, wanted, key],
  )
}

/** Jobs of a fresh topic, claimed with a fresh key. */
async function handedOut(jobs = 1, options: PublishOptions & SubscribeOptions = {}) {
  const { lease, offer, ack, ...publishOptions } = options
  const key = keyOf('again')
  const name = `again_${count}`
  const settings = Object.entries({ lease, offer, ack }).filter(([, set]) => set !== undefined)
  const subscription = await subscribe(session, name, Object.fromEntries(settings))
  for (let job = 0; job < jobs; job++) await publish(session, name, publishOptions)
  const claimed = await claimWithKey(name, subscription, key, jobs)
  const [job] = claimed
  if (job === undefined) throw new Error('nothing was claimed')
  return { key, name, subscription, claimed, job }
}

describe('the same key is given again', () => {
  test('what it was handed, under the same lease, as often as it asks', async () => {
    const { key, job } = await handedOut(1, { spec: '{"a":  1}', lease: 90, traceparent: 'trace' })
    const { id, lease, lease_seconds, lease_ends_at, attempt, redelivered, published_at, job_spec } = job
    for (let time = 0; time < 2; time++) {
      const [given, ...more] = await again(session, [key])
      expect(more).toEqual([])
      expect(given).toMatchObject({
        ...{ id, lease, lease_seconds, lease_ends_at, attempt, redelivered, published_at, job_spec },
        ...{ pull: 1, offered: false, traceparent: 'trace' },
      })
      expect(Math.round(given?.hold_seconds ?? 0)).toBe(90)
    }
    expect(await readJob(session, job.id)).toMatchObject({ state: 'running', attempts: 1, deliveries: 1 })
  })
  test('in the order in which it was handed out, of each key what it asks for', async () => {
    const { key, name, subscription, claimed } = await handedOut(2)
    await publish(session, name)
    await publish(session, name, { priority: 3 })
    const later = await claimWithKey(name, subscription, key, 2)
    const expected = [...claimed, ...later].map(({ id }) => id)
    expect((await again(session, [key])).map(({ id }) => id)).toEqual(expected)
    const { key: second, job } = await handedOut()
    const both = await again(session, [second, keyOf('none'), key], [5, 5, 2])
    expect(both.map(({ pull, id }) => [pull, id])).toEqual([
      [1, job.id],
      ...expected.slice(0, 2).map((id) => [3, id]),
    ])
  })
  test('an offer as an offer, and once it was accepted the lease', async () => {
    const { key, job } = await handedOut(1, { lease: 90, offer: 15 })
    const [offered] = await again(session, [key])
    expect(offered).toMatchObject({ lease: job.lease, offered: true, attempt: 1, lease_seconds: 90 })
    expect(Math.round(offered?.hold_seconds ?? 0)).toBe(15)
    await heartbeat(session, job)
    const [running] = await again(session, [key])
    expect(running).toMatchObject({ lease: job.lease, offered: false, attempt: 1 })
    expect(Math.round(running?.hold_seconds ?? 0)).toBe(90)
  })
})

describe('nothing is given again', () => {
  const nothing = async ({ key }: { key: string }) => expect(await again(session, [key])).toEqual([])

  test('for a key that was handed nothing', async () => {
    await handedOut()
    await nothing({ key: keyOf('never') })
  })
  test('of what was settled, whatever was left is', async () => {
    const made = await handedOut(4)
    const [completed, failed, released, held] = made.claimed
    if (!completed || !failed || !released || !held) throw new Error('four jobs, please')
    await complete(session, completed)
    await fail(session, failed)
    await release(session, released)
    expect((await again(session, [made.key])).map(({ id }) => id)).toEqual([held.id])
    await complete(session, held)
    await nothing(made)
  })
  test('of what went back, whoever has it then: the key is taken off', async () => {
    const ways: Record<string, (job: Held) => Promise<unknown>> = {
      'given back': (job) => byLease(session, 'give_back', [job]),
      doubt: (job) => byLease(session, 'doubt', [job]),
      lost: async ({ id }) => {
        await endLease(session, id)
        await runDue(session)
      },
    }
    for (const offer of [undefined, 15]) {
      for (const go of Object.values(ways)) {
        const made = await handedOut(1, offer === undefined ? {} : { offer })
        await go(made.job)
        expect(await readJob(session, made.job.id)).toMatchObject({ state: 'ready', pull_key: null })
        await nothing(made)
        await claimWithKey(made.name, made.subscription, keyOf('other'))
        await nothing(made)
      }
    }
  })
  test('once the lease or offer has ended, also before anybody has looked', async () => {
    for (const options of [{}, { offer: 15 }]) {
      const made = await handedOut(1, options)
      await endLease(session, made.job.id)
      await nothing(made)
    }
  })
})

describe('what a gateway reports of the earlier hand-over', () => {
  test.each(['give_back', 'doubt'] as const)(
    '%s changes nothing once the job was given again',
    async (report) => {
      for (const options of [{}, { offer: 15 }, { on_lost: 'orphan' }, { on_lost: 'fail' }]) {
        const { key, job } = await handedOut(1, options)
        await again(session, [key])
        const before = await readJob(session, job.id)
        expect(await byLease(session, report, [job])).toBe(0)
        expect(await readJob(session, job.id)).toEqual(before)
        expect(await heartbeat(session, job)).toMatchObject({ status: 'ok' })
      }
    },
  )
  test('counts again for the next hand-over of the job', async () => {
    const { key, name, subscription, job } = await handedOut()
    await again(session, [key])
    await release(session, job)
    const [next] = await claimWithKey(name, subscription, keyOf('next'))
    expect(await byLease(session, 'give_back', [next as Held])).toBe(1)
  })
  test('and giving again wait for each other: whichever is second sees the first', async () => {
    const { key, job } = await handedOut()
    await other.query('begin')
    expect(await byLease(other, 'give_back', [job])).toBe(1)
    const late = again(session, [key])
    await waitsForLock(database, session)
    await other.query('commit')
    expect(await late).toEqual([])

    const second = await handedOut()
    await other.query('begin')
    expect(await again(other, [second.key])).toHaveLength(1)
    const report = byLease(session, 'give_back', [second.job])
    await waitsForLock(database, session)
    await other.query('commit')
    expect(await report).toBe(0)
    expect(await stateOf(session, second.job.id)).toBe('running')
  })
  test('a doubt leaves a job with a key to its executor where on_lost would not requeue it', async () => {
    for (const on_lost of ['orphan', 'fail']) {
      const { key, job } = await handedOut(1, { on_lost })
      expect(await byLease(session, 'doubt', [job])).toBe(0)
      expect(await again(session, [key])).toMatchObject([{ id: job.id, lease: job.lease }])
    }
  })
})

test('a claim without a key writes none, also over one that was there', async () => {
  const { name, subscription, job } = await handedOut()
  await release(session, job)
  const sql = `select * from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], '{1}', '{}', '{}')`
  expect(await rows(session, sql, [name, subscription])).toMatchObject([{ id: job.id }])
  expect(await readJob(session, job.id)).toMatchObject({ pull_key: null, given_again: false })
})
