import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claimDue,
  claimOne,
  fail,
  heartbeat,
  publish,
  refusal,
  release,
  rows,
  runDue,
  runningJob,
  subscribe,
  value,
} from './jobs.ts'

const database = useDatabase()
let session: pg.Client
let listener: pg.Client
const heard: string[] = []
let marks = 0
let marked: (() => void) | undefined

beforeAll(async () => {
  session = await database.session()
  listener = await database.session()
  listener.on('notification', ({ payload = '' }) => {
    if (payload === `mark ${marks}`) marked?.()
    else heard.push(payload)
  })
  await listener.query('listen pullgate_wake')
  await arm('a', 'b', 'quiet', 'back', 'later', 'calm')
})

/** Everything notified so far has been heard: notifications keep their order. */
async function mark(): Promise<void> {
  const seen = new Promise<void>((resolve) => (marked = resolve))
  await database.query(`select pg_notify('pullgate_wake', $1)`, [`mark ${++marks}`])
  await seen
}

/** What was notified while `work` ran, with the topic's name in place of its id. */
async function wakes(topic: string, work: () => Promise<unknown>): Promise<string[]> {
  await mark()
  heard.length = 0
  await work()
  await mark()
  const id = await value(session, 'select pullgate.topic_id($1)', [topic])
  return heard.map((payload) => payload.replace(id, topic))
}

/** As for a gateway whose pulls wait for the topics. */
async function arm(...topics: string[]): Promise<void> {
  await database.query(
    'select pullgate.arm(gen_random_uuid(), array(select pullgate.topic_id(t) from unnest($1::text[]) as t))',
    [topics],
  )
}

async function inTransaction(end: string, work: () => Promise<unknown>): Promise<void> {
  await session.query('begin')
  await work()
  await session.query(end)
}

describe('publishing', () => {
  const ways: Record<string, () => Promise<unknown>> = {
    publish: () => publish(session, 'a'),
    publish_many: () => rows(session, `select pullgate.publish_many('a', '{1,2,3}'::text[])`),
    'publish_many with keys': () =>
      rows(
        session,
        `select pullgate.publish_many('a', '{1,2}'::text[], dedupe_keys => array[gen_random_uuid()::text, null])`,
      ),
    'an insert into the inbox': () =>
      rows(
        session,
        `insert into pullgate.inbox (topic, job_spec) select 'a', '1' from generate_series(1, 10)`,
      ),
    'an insert into the job table': () =>
      rows(
        session,
        `insert into pullgate.job (lane_id, topic_id, state, job_spec)
          select l.id, l.topic_id, 'ready', '1' from pullgate.lane l, generate_series(1, 10) where l.topic = 'a'`,
      ),
  }
  test.each(Object.entries(ways))('by %s wakes the topic once per transaction', async (_, work) => {
    expect(await wakes('a', work)).toEqual(['a'])
    const three = async () => {
      for (let time = 0; time < 3; time++) await work()
    }
    expect(await wakes('a', () => inTransaction('commit', three))).toEqual(['a'])
    expect(await wakes('a', () => inTransaction('rollback', three))).toEqual([])
  })
  test('wakes each topic of the transaction', async () => {
    const both = async () => {
      await publish(session, 'a')
      await publish(session, 'b')
      await publish(session, 'a')
    }
    const [b, ...more] = (await wakes('a', () => inTransaction('commit', both))).filter(
      (payload) => payload !== 'a',
    )
    expect([b, more]).toEqual([await value(session, `select pullgate.topic_id('b')`), []])
  })
  test('adds nothing for a job that was there', async () => {
    await publish(session, 'a', { dedupe_key: 'k' })
    expect(await wakes('a', () => publish(session, 'a', { dedupe_key: 'k' }))).toEqual([])
  })
  test('notifies of a job due within 2 s as due, of a later one not at all', async () => {
    expect(await wakes('a', () => publish(session, 'a', { delay: '1.9 s' }))).toEqual(['due:a'])
    expect(await wakes('a', () => publish(session, 'a', { delay: '3 s' }))).toEqual([])
    const mixed = async () => {
      await publish(session, 'a', { delay: '1 s' })
      await publish(session, 'a')
      await publish(session, 'a', { delay: '1 s' })
    }
    expect((await wakes('a', () => inTransaction('commit', mixed))).sort()).toEqual(['a', 'due:a'])
  })
})

describe('pullgate.notify = off', () => {
  const silent = async () => {
    await session.query('set local pullgate.notify = off')
    await publish(session, 'quiet')
    await publish(session, 'quiet', { delay: '1 s' })
  }
  test('keeps the transaction silent, and that one only', async () => {
    await publish(session, 'quiet')
    expect(await wakes('quiet', () => inTransaction('commit', silent))).toEqual([])
    expect(await wakes('quiet', () => publish(session, 'quiet'))).toEqual(['quiet'])
  })
  test('lets a transaction be prepared, which a notification forbids', async () => {
    await session.query('begin')
    await publish(session, 'quiet')
    expect((await refusal(session, `prepare transaction 'noisy'`)).code).toBe('0A000')
    await inTransaction(`prepare transaction 'silent'`, silent)
    await session.query(`commit prepared 'silent'`)
    const subscription = await subscribe(session, 'quiet')
    expect((await claimOne(session, 'quiet', subscription)).id).toBeDefined()
  })
  test('leaves the wake to pullgate.wake', async () => {
    expect(await wakes('quiet', () => rows(session, `select pullgate.wake('quiet')`))).toEqual(['quiet'])
    expect((await refusal(session, `select pullgate.wake('no/topic')`)).code).toBe('PL001')
  })
})

describe('a job that comes back', () => {
  test('by give_back, release, a retry and a lost lease wakes its topic', async () => {
    const job = await runningJob(session, 'back')
    const again = () => claimOne(session, 'back', subscription)
    const subscription = await subscribe(session, 'back')
    expect(await wakes('back', () => byLease(session, 'give_back', [job]))).toEqual(['back'])
    const released = await again()
    expect(await wakes('back', () => release(session, released))).toEqual(['back'])
    const failed = await again()
    expect(await wakes('back', () => fail(session, failed, { after: 0 }))).toEqual(['back'])
    const lost = await again()
    expect(await wakes('back', () => byLease(session, 'doubt', [lost]))).toEqual(['back'])
    const dead = await again()
    expect(await wakes('back', () => fail(session, dead, { retry: false }))).toEqual([])
    expect(await wakes('back', () => rows(session, 'select pullgate.retry($1)', [dead.id]))).toEqual(['back'])
  })
  test('later says due if that is within 2 s', async () => {
    const job = await runningJob(session, 'later')
    expect(await wakes('later', () => release(session, job, 1))).toEqual(['due:later'])
    await rows(session, `update pullgate.job set due_at = clock_timestamp() where id = $1`, [job.id])
    expect(await wakes('later', () => runDue(session))).toContain('later')
    const again = await claimOne(session, 'later', await subscribe(session, 'later'))
    expect(await wakes('later', () => fail(session, again, { after: 60 }))).toEqual([])
  })
})

describe('due work that claims', () => {
  const dueJob = async (topic: string) => {
    const id = await publish(session, topic, { delay: '1 hour' })
    await rows(session, 'update pullgate.job set due_at = clock_timestamp() where id = $1', [id])
  }
  beforeEach(async () => {
    await session.query('truncate pullgate.job')
  })
  test('wakes nobody for what it has claimed, the topics that keep a ready job once', async () => {
    const subscription = await subscribe(session, 'a')
    await dueJob('a')
    expect(await wakes('a', () => claimDue(session, 'a', subscription))).toEqual([])
    for (const topic of ['a', 'a', 'a', 'b', 'unarmed']) await dueJob(topic)
    const both = await wakes('a', () => claimDue(session, 'a', subscription))
    expect(both.sort()).toEqual([await value(session, `select pullgate.topic_id('b')`), 'a'].sort())
  })
  test('leaves the transaction as silent, or not, as it was', async () => {
    const subscription = await subscribe(session, 'a')
    await session.query('begin')
    await claimDue(session, 'a', subscription)
    expect(await wakesAtCommit(() => publish(session, 'a'))).toEqual(['a'])
    await session.query('begin; set local pullgate.notify = off')
    await dueJob('b')
    await claimDue(session, 'b', subscription, { count: 0 })
    expect(await wakesAtCommit(() => publish(session, 'a'))).toEqual([])
  })
  const wakesAtCommit = (work: () => Promise<unknown>) =>
    wakes('a', async () => {
      await work()
      await session.query('commit')
    })
})

test('claims, heartbeats and settles by lease notify nobody', async () => {
  const job = await runningJob(session, 'calm')
  const subscription = await subscribe(session, 'calm')
  await publish(session, 'calm')
  const work = async () => {
    await heartbeat(session, job, 60, '{"done": 1}')
    await heartbeat(session, job, 10)
    const other = await claimOne(session, 'calm', subscription)
    await rows(session, `select pullgate.settle_completes(array[$1::bigint], array[$2::uuid], '{null}')`, [
      other.id,
      other.lease,
    ])
  }
  expect(await wakes('calm', work)).toEqual([])
})

test('an ended subscription is told by name, a resumed topic is woken', async () => {
  const subscription = await subscribe(session, 'ends')
  const end = () => rows(session, 'select pullgate.unsubscribe($1, false)', [subscription])
  expect(await wakes('ends', end)).toEqual([`ended:${subscription}`])
  expect(await wakes('ends', end)).toEqual([])
  const pause = (paused: boolean) => () =>
    rows(session, `select pullgate.configure_topic('ends', paused => $1)`, [paused])
  expect(await wakes('ends', pause(true))).toEqual([])
  expect(await wakes('ends', pause(false))).toEqual(['ends'])
})

test.each(['complete($1)', `fail($1, 'no')`])(
  'an outcome by id tells of a job that runs with explicit acknowledgement, and of no other: %s',
  async (outcome) => {
    const tell = (id: string) => () => rows(session, `select pullgate.${outcome}`, [id])
    const job = await runningJob(session, 'told')
    expect(await wakes('told', tell(job.id))).toEqual([`cancel:${job.id}`])
    expect(await wakes('told', tell(job.id))).toEqual([])
    expect(await wakes('told', tell(await publish(session, 'told')))).toEqual([])
    const offered = await runningJob(session, 'told-offer', { offer: 15 })
    expect(await wakes('told-offer', tell(offered.id))).toEqual([])
    const auto = await runningJob(session, 'told-auto', { ack: 'auto' })
    expect(await wakes('told-auto', tell(auto.id))).toEqual([])
  },
)

test('a cancel tells of the job that runs, and of no other, unless the transaction is silent', async () => {
  const job = await runningJob(session, 'cancels')
  const cancel = (id: string) => () => rows(session, 'select pullgate.cancel($1)', [id])
  expect(await wakes('cancels', cancel(job.id))).toEqual([`cancel:${job.id}`])
  expect(await wakes('cancels', cancel(await publish(session, 'cancels')))).toEqual([])
  const offered = await runningJob(session, 'cancels-offer', { offer: 15 })
  expect(await wakes('cancels', cancel(offered.id))).toEqual([])
  const silently = () =>
    inTransaction('commit', async () => {
      await session.query('set local pullgate.notify = off')
      await cancel(job.id)()
    })
  expect(await wakes('cancels', silently)).toEqual([])
})
