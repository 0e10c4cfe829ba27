import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import {
  byLease,
  claim,
  claimOne,
  complete,
  fail,
  heartbeat,
  publish,
  release,
  rows,
  runDue,
  subscribe,
  value,
} from './jobs.ts'

/** A publisher's transaction that stays open, and everybody else, who must not notice. */
const database = useDatabase()
let open: pg.Client
let other: pg.Client

beforeAll(async () => {
  open = await database.session()
  other = await database.session()
  // Far above what any statement needs, far below a wait for the open transaction.
  await other.query(`set lock_timeout = '2s'; set statement_timeout = '5s'`)
})

const levels = ['read committed', 'repeatable read', 'serializable']
let topic = ''
let round = 0

describe.each(levels)("a publisher's open %s transaction", (level) => {
  describe.each(['a brand-new topic', 'a topic in use'])('on %s', (kind) => {
    let subscription = ''
    beforeEach(async () => {
      topic = `locks_${++round}`
      if (kind === 'a topic in use') await publish(other, topic)
      await open.query(`rollback; begin isolation level ${level}`)
      await publish(open, topic)
      await publish(open, topic, { priority: 1, dedupe_key: 'open', delay: '1 second' })
      await rows(open, `select pullgate.publish_many($1, '{1,2}'::text[], priority => 2)`, [topic])
      await rows(open, `insert into pullgate.inbox (topic, job_spec) values ($1, '1')`, [topic])
      subscription = await subscribe(other, topic)
    })

    test('lets other publishers through, of its lanes and of new ones', async () => {
      for (const priority of [0, 1, 2, 3])
        await publish(other, topic, { priority, dedupe_key: `p${priority}` })
      await rows(other, `select pullgate.publish_many($1, '{1,2}'::text[], dedupe_keys => '{a,b}')`, [topic])
      await rows(other, `insert into pullgate.inbox (topic, job_spec) values ($1, '1')`, [topic])
    })
    test('lets executors subscribe, claim, settle and hand back', async () => {
      await rows(other, `select pullgate.publish_many($1, array_fill('1'::text, '{7}'))`, [topic])
      const held = async () => claimOne(other, topic, subscription)
      expect(await complete(other, await held())).toMatchObject({ status: 'ok' })
      expect(await fail(other, await held())).toMatchObject({ status: 'ok' })
      expect(await release(other, await held(), 60)).toMatchObject({ status: 'ok' })
      expect(await heartbeat(other, await held())).toMatchObject({ status: 'ok' })
      expect(await byLease(other, 'give_back', [await held()])).toBe(1)
      expect(await byLease(other, 'doubt', [await held()])).toBe(1)
      expect(await value(other, 'select pullgate.unsubscribe($1, true)', [subscription])).toBe(true)
      await subscribe(other, [topic, `${topic}_too`], { name: topic })
    })
    test('lets time and upkeep pass', async () => {
      expect(await runDue(other)).toMatchObject({ expired: 0 })
      await rows(
        other,
        `select * from pullgate.look(array[pullgate.topic_id($1)], '{}', '{}', null, 100, true)`,
        [topic],
      )
      await rows(other, 'select pullgate.upkeep()')
      await rows(other, 'select * from pullgate.snapshot_jobs(0)')
    })
    test('lets people configure the topic and decide on its jobs', async () => {
      await rows(other, `select * from pullgate.configure_topic($1, max_attempts => 3)`, [topic])
      const failed = await publish(other, topic, { dedupe_key: 'x' })
      await rows(other, `select pullgate.fail($1, 'no')`, [failed])
      expect(await value(other, 'select pullgate.retry($1)', [failed])).toBe('ready')
      expect(await value(other, 'select pullgate.cancel($1)', [failed])).toBe('cancelled')
    })
    test('shows its jobs only once it commits, and then they are claimed', async () => {
      await rows(other, `update pullgate.job set state = 'running' where topic_id = pullgate.topic_id($1)`, [
        topic,
      ])
      expect(await claim(other, topic, subscription, 10)).toEqual([])
      await open.query('commit')
      expect((await claim(other, topic, subscription, 10)).length).toBe(4)
    })
  })
})

test('publishers that were first at the same time share one lane', async () => {
  const sessions = [open, other, await database.session()]
  for (const session of sessions) {
    await session.query('begin')
    await publish(session, 'first')
  }
  for (const session of sessions) await session.query('commit')
  expect(
    await rows(
      other,
      `select count(*), count(distinct id) as lanes from pullgate.lane where topic = 'first'`,
    ),
  ).toEqual([{ count: '3', lanes: '1' }])
  const subscription = await subscribe(other, 'first')
  expect((await claim(other, 'first', subscription, 10)).length).toBe(3)
  await publish(other, 'first')
  expect((await claim(other, 'first', subscription, 10)).length).toBe(1)
})

test('a delayed publish has its transaction id before it reads anything', async () => {
  await open.query('begin; lock table pullgate.lane')
  const waiting = publish(other, 'clock', { delay: '1 second' })
  await waitsForLock(database, other)
  const { processID } = other as pg.Client & { processID: number }
  const began = 'select backend_xid is not null from pg_stat_activity where pid = $1'
  expect(await value<boolean>(open, began, [processID])).toBe(true)
  await open.query('rollback')
  await waiting
})
