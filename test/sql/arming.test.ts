import pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { until } from '../support/http.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { publish, rows, subscribe, value } from './jobs.ts'
import { arm, copyFrom, disarm, ears, look, topicId } from './watching.ts'

/**
 * Publishers read the registry after they have a transaction id, so that a fresh id drawn after an arm is higher than
 * that of each that could have missed it. Here publishers pause between their insert and their commit.
 */
const database = useDatabase()
let publisher: pg.Client
let other: pg.Client
let hear: Awaited<ReturnType<typeof ears>>
let topic = ''
let topics = 0

beforeAll(async () => {
  ;[publisher, other] = await Promise.all([database.session(), database.session()])
  hear = await ears(database)
})

beforeEach(async () => {
  topic = `topic-${(topics += 1)}`
  // Its lane is there: some of the ways to publish need one.
  await rows(database, `select pullgate.publish($1, '0'::text, delay => '1 day')`, [topic])
})

const ready = (specs = 1) => rows(publisher, insertReady, [topic, specs])
const insertReady = `insert into pullgate.job (lane_id, topic_id, state, job_spec)
  select l.id, l.topic_id, 'ready', '1' from pullgate.lane l, generate_series(1, $2::integer) where l.topic = $1`

/** Other files' tests have transactions of their own in the cluster; they end. */
async function passed(fence: bigint): Promise<void> {
  await until(async () => expect((await look(database, [])).horizon >= fence).toBe(true))
}

/** Each leaves its transaction open. */
const ways: Record<string, () => Promise<unknown>> = {
  publish: () => publish(publisher, topic),
  publish_many: () => rows(publisher, `select pullgate.publish_many($1, '{1,2,3}'::text[])`, [topic]),
  'INSERT into the inbox': () =>
    rows(publisher, `insert into pullgate.inbox (topic, job_spec) values ($1, '1')`, [topic]),
  'INSERT into the job table': () => ready(2),
  'an UPDATE that makes a job ready': () =>
    rows(publisher, `update pullgate.job set state = 'ready' where topic_id = pullgate.topic_id($1)`, [
      topic,
    ]),
  'COPY into the inbox': () =>
    copyFrom(publisher, 'copy pullgate.inbox (topic, job_spec) from stdin', `${topic}\t1\n`),
  'COPY into the job table': async () => {
    const [lane] = await rows<{ id: string }>(publisher, 'select id from pullgate.lane where topic = $1', [
      topic,
    ])
    const data = [lane?.id, await topicId(publisher, topic), 'ready', '1'].join('\t')
    const sql = 'copy pullgate.job (lane_id, topic_id, state, job_spec) from stdin'
    await copyFrom(publisher, sql, `${data}\n`)
  },
  'publish in a savepoint': async () => {
    await publisher.query('savepoint s')
    await publish(publisher, topic)
    await publisher.query('release savepoint s')
  },
  'publish in an exception block, after one that rolled back': () =>
    publisher.query(`do $$
      begin
        begin
          perform pullgate.publish('${topic}', '1'::text);
          raise exception 'no';
        exception when others then null;
        end;
        begin
          perform pullgate.publish('${topic}', '2'::text);
        exception when others then null;
        end;
      end $$`),
}

describe.each(Object.entries(ways))('%s', (_, insert) => {
  test('before the arm is silent, holds the fence open until it commits, and is seen then', async () => {
    await publisher.query('begin')
    await insert()
    expect(await arm(database, [topic])).toEqual([topic])
    const first = await look(database, [topic], { fence: true })
    expect(first.horizon < first.fence).toBe(true)
    expect(first.ready_topics).toEqual([])
    const again = await look(database, [topic])
    expect(again.horizon < first.fence).toBe(true)
    expect(await hear.during(() => publisher.query('commit'))).toEqual([])
    // Whatever closes the fence has seen the job.
    const last = await look(database, [topic])
    expect(last.ready_topics).toEqual([topic])
  })
  test('after the arm notifies, once', async () => {
    await arm(database, [topic])
    await publisher.query('begin')
    await insert()
    expect(await hear.during(() => publisher.query('commit'))).toEqual([await topicId(database, topic)])
  })
  test('of an unarmed topic is silent, and notifies again once it is armed', async () => {
    await arm(database, ['another'])
    const silent = async () => {
      await publisher.query('begin')
      await insert()
      await publisher.query('commit')
    }
    expect(await hear.during(silent)).toEqual([])
  })
})

test('a transaction that began before the arm and inserts after it notifies, in read committed', async () => {
  await publisher.query('begin')
  await publish(publisher, `${topic}-earlier`)
  await arm(database, [topic])
  await publish(publisher, topic)
  expect(await hear.during(() => publisher.query('commit'))).toEqual([await topicId(database, topic)])
})

describe.each(['repeatable read', 'serializable'])('%s', (level) => {
  test('notifies always: it may see the registry as it was before the arm', async () => {
    await publisher.query(`begin isolation level ${level}`)
    // Its snapshot is older than the arm.
    await value(publisher, 'select count(*) from pullgate.armed')
    await arm(database, [topic])
    // It has no transaction id yet: no fence can wait for it.
    await passed((await look(database, [topic], { fence: true })).fence)
    await publish(publisher, topic)
    expect(
      await value(publisher, 'select count(*) from pullgate.armed where topic_id = pullgate.topic_id($1)', [
        topic,
      ]),
    ).toBe('0')
    expect(await hear.during(() => publisher.query('commit'))).toEqual([await topicId(database, topic)])
    await publisher.query(`begin isolation level ${level}`)
    await publish(publisher, `${topic}-unarmed`)
    await publish(publisher, `${topic}-unarmed`, { delay: '1 second' })
    const id = await topicId(database, `${topic}-unarmed`)
    expect((await hear.during(() => publisher.query('commit'))).sort()).toEqual([id, `due:${id}`].sort())
  })
})

test('a prepared transaction that missed the arm holds the fence open until it is committed', async () => {
  await publisher.query('begin')
  await publish(publisher, topic)
  await publisher.query(`prepare transaction 'missed'`)
  await arm(database, [topic])
  const { fence, horizon } = await look(database, [topic], { fence: true })
  expect(horizon < fence).toBe(true)
  expect(await hear.during(() => publisher.query(`commit prepared 'missed'`))).toEqual([])
  expect((await look(database, [topic])).ready_topics).toEqual([topic])
})

test('a rolled-back publisher lets the fence close with nothing seen', async () => {
  await publisher.query('begin')
  await publish(publisher, topic)
  await arm(database, [topic])
  const { fence } = await look(database, [topic], { fence: true })
  await publisher.query('rollback')
  await passed(fence)
  expect((await look(database, [topic])).ready_topics).toEqual([])
})

test('with no publisher under way the first look closes the fence that it draws', async () => {
  await arm(database, [topic])
  await until(async () => {
    const { fence, horizon, ready_topics } = await look(database, [topic], { fence: true })
    expect([horizon, ready_topics]).toEqual([fence, []])
  })
})

describe('a job that an open claim has locked', () => {
  test('is noted by a claim that comes back short, looks ready, and can be claimed when that rolls back', async () => {
    const subscription = await subscribe(database, topic)
    const id = await publish(database, topic)
    await other.query('begin')
    const claim = (runner: pg.Client | typeof database) =>
      rows<{ id: string | null; note: string | null }>(
        runner,
        `select id, note from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], '{1}', '{}', '{}')`,
        [topic, subscription],
      )
    expect(await claim(other)).toEqual([{ id, note: null }])
    expect(await claim(database)).toEqual([{ id: null, note: 'left' }])
    expect((await look(database, [topic])).ready_topics).toEqual([topic])
    await other.query('rollback')
    expect(await claim(database)).toEqual([{ id, note: null }])
    expect(await claim(database)).toEqual([])
    expect((await look(database, [topic])).ready_topics).toEqual([])
  })
})

describe('an unrelated writer', () => {
  test.each(['this', 'another'])(
    'in %s database keeps the horizon below the fence until it ends',
    async (where) => {
      if (where === 'another') await runOnce(database.url, 'create database elsewhere')
      const url = where === 'this' ? database.url : withDatabase(database.url, 'elsewhere')
      const writer = new pg.Client({ connectionString: url })
      await writer.connect()
      await writer.query('begin; select pg_current_xact_id()')
      await arm(database, [topic])
      const { fence, horizon } = await look(database, [topic], { fence: true })
      expect(horizon < fence).toBe(true)
      await writer.query('commit')
      await passed(fence)
      await writer.end()
      if (where === 'another') await runOnce(database.url, 'drop database elsewhere')
    },
  )
})

test('pullgate.notify = off keeps a publisher silent also for an armed topic, and at any isolation level', async () => {
  await arm(database, [topic])
  for (const level of ['read committed', 'serializable']) {
    await publisher.query(`begin isolation level ${level}; set local pullgate.notify = off`)
    await publish(publisher, topic)
    expect(await hear.during(() => publisher.query('commit'))).toEqual([])
  }
})

describe('the registry', () => {
  const endsIn = () =>
    value<number>(
      database,
      `select extract(epoch from a.until - clock_timestamp())::float8 from pullgate.armed a
        where a.topic_id = pullgate.topic_id($1)`,
      [topic],
    )
  const setUntil = (interval: string) =>
    rows(
      database,
      `update pullgate.armed set until = clock_timestamp() + $2::interval where topic_id = pullgate.topic_id($1)`,
      [topic, interval],
    )
  test('names as fresh what was not armed, has lapsed or is about to; renews the rest', async () => {
    expect(await arm(database, [topic])).toEqual([topic])
    expect(await arm(database, [topic, `${topic}-b`])).toEqual([`${topic}-b`])
    for (const [left, fresh] of [
      ['-1 second', [topic]],
      ['4 seconds', [topic]],
      ['20 seconds', []],
    ] as const) {
      await setUntil(left)
      expect(await arm(database, [topic])).toEqual(fresh)
      expect(await endsIn()).toBeGreaterThan(25)
    }
    expect(await arm(database, [topic, topic])).toEqual([])
  })
  test('that lapsed leaves publishers silent; another gateway’s row does not make a topic less fresh', async () => {
    await arm(database, [topic])
    await setUntil('-1 second')
    expect(await hear.during(() => publish(database, topic))).toEqual([])
    expect(await arm(database, [topic], '00000000-0000-4000-8000-0000000000bb')).toEqual([topic])
    expect(await hear.during(() => publish(database, topic))).toHaveLength(1)
    expect(await arm(database, [topic])).toEqual([topic])
    await disarm(database, [topic])
    expect(await hear.during(() => publish(database, topic))).toHaveLength(1)
    await disarm(database, [topic], '00000000-0000-4000-8000-0000000000bb')
    expect(await hear.during(() => publish(database, topic))).toEqual([])
  })
  test('is rid of rows that ended a minute ago by the upkeep', async () => {
    await arm(database, [topic, `${topic}-b`])
    await setUntil('-61 seconds')
    await rows(database, 'select pullgate.upkeep()')
    const left = 'select count(*)::integer from pullgate.armed where topic_id = pullgate.topic_id($1)'
    expect(await value(database, left, [topic])).toBe(0)
    expect(await value(database, left, [`${topic}-b`])).toBe(1)
  })
  test('that a crash has emptied is filled anew: every topic is fresh again', async () => {
    await arm(database, [topic, `${topic}-b`])
    await rows(database, 'truncate pullgate.armed')
    expect(await hear.during(() => publish(database, topic))).toEqual([])
    expect(await arm(database, [topic, `${topic}-b`])).toEqual([topic, `${topic}-b`])
    expect(
      await value(database, `select relpersistence from pg_class where oid = 'pullgate.armed'::regclass`),
    ).toBe('u')
  })
})
