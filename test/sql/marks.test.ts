import { once } from 'node:events'
import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { until } from '../support/http.ts'
import { publish, row, rows, subscribe, value } from './jobs.ts'
import type { Runner } from './jobs.ts'
import { look } from './watching.ts'

const database = useDatabase()
let one: pg.Client
let two: pg.Client
let topic = ''
let subscription = ''
let topics = 0

beforeAll(async () => {
  ;[one, two] = await Promise.all([database.session(), database.session()])
})

beforeEach(async () => {
  topic = `topic-${(topics += 1)}`
  subscription = await subscribe(database, topic)
})

type Pair = { upto: string; fence: string; at: Date }
type Marks = { lanes: string[]; marks: string[] }
type Advanced = Pair & Marks & { passed: boolean; due_after: Date | null; running: string[] }

const noMarks: Marks = { lanes: [], marks: [] }

function advance(
  pair: Pair | null,
  { marks = noMarks, leftOut = [] as string[], dueAfter = null as Date | null, of = [topic] } = {},
): Promise<Advanced> {
  return row<Advanced>(
    database,
    `select passed, lanes::text[], marks::text[], due_after, upto::text, fence::text, at, running::text[]
      from pullgate.advance_marks(array(select pullgate.topic_id(t) from unnest($1::text[]) as t),
        $2::bigint[], $3::bigint[], $4, $5, $6::xid8, $7, $8::xid8[])`,
    [of, marks.lanes, marks.marks, dueAfter, pair?.upto, pair?.fence, pair?.at, leftOut],
  )
}

/** As `advance`; other files' tests have transactions of their own in the cluster, which end. */
async function applied(pair: Pair, options: Parameters<typeof advance>[1] = {}): Promise<Advanced> {
  let result: Advanced | undefined
  await until(async () => {
    result = await advance(pair, options)
    expect(result.passed).toBe(true)
  })
  if (result === undefined) throw new Error('until resolves once it is there')
  return result
}

/** The mark of the topic's lane itself, and that of its returned twin. */
async function markOf({ lanes, marks }: Marks, name = topic): Promise<[number, number]> {
  const lane = await value(database, 'select min(id) from pullgate.lane where topic = $1', [name])
  const twin = String(BigInt(lane) | 1n)
  return [Number(marks[lanes.indexOf(lane)]), Number(marks[lanes.indexOf(twin)])]
}

type Claimed = { id: string | null; note: string | null; slot: number }

function claim(runner: Runner, count: number, { lanes, marks } = noMarks): Promise<Claimed[]> {
  return rows<Claimed>(
    runner,
    `select id, note, slot from pullgate.claim(
      array[pullgate.topic_id($1)], array[$2::uuid], array[$3::integer], $4::bigint[], $5::bigint[])`,
    [topic, subscription, count, lanes, marks],
  )
}

const only = ({ lanes, marks }: Marks): Marks => ({ lanes, marks })
const ids = (claimed: Claimed[]) => claimed.map(({ id, note }) => id ?? note)
const seqOf = async (id: string) =>
  Number(await value(database, 'select seq from pullgate.job where id = $1', [id]))
const reseat = (runner: Runner, { lanes, marks }: Marks, from: number, limit = 500) =>
  row<{ topics: string[]; remaining: boolean }>(
    runner,
    'select topics::text[], remaining from pullgate.reseat($1::bigint[], $2::bigint[], $3, $4)',
    [lanes, marks, from, limit],
  )

async function published(count: number, runner: Runner = database): Promise<string[]> {
  const all: string[] = []
  for (let n = 0; n < count; n += 1) all.push(await publish(runner, topic))
  return all
}

describe('advance_marks', () => {
  test('applies no pair while a transaction below its fence runs, and applies the same pair after it', async () => {
    await published(1)
    await two.query('begin')
    const [late] = await published(1, two)
    const pair = await advance(null)
    expect([pair.passed, pair.lanes]).toEqual([false, null])
    const writer = await value(two, 'select pg_current_xact_id()::text')
    const held = await advance(pair)
    expect([held.passed, held.upto, held.fence, held.at]).toEqual([false, pair.upto, pair.fence, pair.at])
    expect(held.running).toContain(writer)
    await claim(database, 1)
    await two.query('commit')
    const passed = await applied(pair)
    // The late job is below what was drawn, and visible by now.
    expect((await markOf(passed))[0]).toBe((await seqOf(late ?? '')) - 1)
    expect(BigInt(passed.fence) > BigInt(pair.fence)).toBe(true)
    expect(ids(await claim(database, 2, passed))).toEqual([late])
  })
  test('sets a mark just before the lowest ready job, or to the last seq drawn where none is ready', async () => {
    const [first = '', second = ''] = await published(2)
    const pair = await advance(null)
    const before = await applied(pair)
    expect(await markOf(before)).toEqual([(await seqOf(first)) - 1, Number(pair.upto)])
    await claim(database, 1)
    const between = await applied(before, { marks: before })
    expect((await markOf(between))[0]).toBe((await seqOf(second)) - 1)
    await claim(database, 1, between)
    const behind = await applied(between, { marks: between })
    expect(await markOf(behind)).toEqual([Number(between.upto), Number(between.upto)])
    const [third] = await published(1)
    expect(ids(await claim(database, 1, behind))).toEqual([third])
  })
  test('takes a job that an open claim has locked for ready: rolled back, it is not stranded', async () => {
    const [id = ''] = await published(1)
    await two.query('begin')
    expect(ids(await claim(two, 1))).toEqual([id])
    const writer = await value(two, 'select pg_current_xact_id()::text')
    const pair = await advance(null)
    const passed = await applied(pair, { leftOut: [writer] })
    expect((await markOf(passed))[0]).toBe((await seqOf(id)) - 1)
    await two.query('rollback')
    expect(ids(await claim(database, 1, passed))).toEqual([id])
  })
  test('never moves a mark back', async () => {
    const [id = ''] = await published(1)
    const first = await applied(await advance(null))
    const lane = await value(database, 'select lane_id from pullgate.job where id = $1', [id])
    const ahead = { lanes: [lane], marks: ['1000000'] }
    expect((await markOf(await applied(first, { marks: ahead })))[0]).toBe(1_000_000)
  })
  test('knows a sequence that was never called', async () => {
    await database.query('begin; alter sequence pullgate.job_seq restart')
    expect((await advance(null)).upto).toBe('0')
    await database.query('rollback')
  })
  test('leaves due instants out up to which nothing falls due, and passes no job of a late transaction', async () => {
    await two.query('begin')
    await publish(two, topic, { delay: '1 second' })
    const pair = await advance(null)
    expect((await advance(pair)).due_after).toBeNull()
    await two.query('commit')
    // It fell due long before the pair was drawn.
    await database.query(`update pullgate.job set due_at = $2 where topic_id = pullgate.topic_id($1)`, [
      topic,
      new Date(pair.at.getTime() - 60_000),
    ])
    const passed = await applied(pair)
    expect(passed.due_after?.getTime()).toBeLessThan(pair.at.getTime() - 60_000 + 1)
    const run = () =>
      row<{ promoted: number }>(database, 'select promoted from pullgate.run_due(100, $1)', [
        passed.due_after,
      ])
    expect((await run()).promoted).toBe(1)
    const beyond = await applied(passed, { dueAfter: passed.due_after })
    const seconds = (passed.at.getTime() - (beyond.due_after?.getTime() ?? 0)) / 1000
    expect(Math.round(seconds)).toBe(5)
  })
})

describe('a writer that is left out', () => {
  async function stranded() {
    await published(1)
    await two.query('begin')
    const late = await published(3, two)
    const [later = ''] = await published(1)
    const writer = await value(two, 'select pg_current_xact_id()::text')
    const from = await markOf(await applied(await advance(null), { leftOut: [writer] }))
    await claim(database, 2)
    const pair = await advance(null)
    const passed = await applied(pair, { leftOut: [writer] })
    expect(passed.running).toEqual([writer])
    await two.query('commit')
    return { late, later, passed, from: from[0], upto: Number(pair.upto), writer }
  }
  test('leaves jobs below the mark, which no claim sees until they are seated anew, in their order', async () => {
    const { late, passed, from, writer } = await stranded()
    expect((await advance(passed, { marks: passed, leftOut: [writer] })).running).not.toContain(writer)
    expect(ids(await claim(database, 5, passed))).toEqual([])
    expect((await look(database, [topic], only(passed))).ready_topics).toEqual([])
    const [fresh] = await published(1)
    expect(await reseat(database, passed, from)).toEqual({
      topics: [await value(database, 'select pullgate.topic_id($1)', [topic])],
      remaining: false,
    })
    expect((await look(database, [topic], only(passed))).ready_topics).toEqual([topic])
    // Served first, as jobs that come back are; nothing else is touched.
    expect(ids(await claim(database, 5, passed))).toEqual([...late, fresh])
    expect(await reseat(database, passed, from)).toEqual({ topics: [], remaining: false })
  })
  test('is seated anew up to the marks only: the backlog above them keeps its place', async () => {
    const { late, passed, from } = await stranded()
    const backlog = await published(2)
    await reseat(database, passed, from)
    const lanes = 'select id, lane_id & 1 = 1 as twin from pullgate.job where id = any ($1) order by id'
    expect(await rows(database, lanes, [[...late, ...backlog]])).toEqual([
      ...late.map((id) => ({ id, twin: true })),
      ...backlog.map((id) => ({ id, twin: false })),
    ])
  })
  test('wakes the gateways that wait for its topics', async () => {
    const { passed, from } = await stranded()
    const listener = await database.session()
    const heard = once(listener, 'notification')
    await listener.query('listen pullgate_wake')
    await database.query('select pullgate.arm(gen_random_uuid(), array[pullgate.topic_id($1)])', [topic])
    await reseat(database, passed, from)
    expect(await heard).toMatchObject([
      { payload: await value(database, 'select pullgate.topic_id($1)', [topic]) },
    ])
  })
  test('whose job a claim has locked is not waited for, but told of; rolled back, it is seated anew as well', async () => {
    const { late, passed, from } = await stranded()
    await one.query('begin')
    expect(ids(await claim(one, 1))).toEqual([late[0]])
    expect(await reseat(two, passed, from)).toMatchObject({ remaining: true })
    expect(ids(await claim(database, 5, passed))).toEqual(late.slice(1))
    await one.query('rollback')
    expect(await reseat(two, passed, from)).toMatchObject({ remaining: false })
    expect(ids(await claim(database, 5, passed))).toEqual(late.slice(0, 1))
  })
  test('whose job was claimed meanwhile is left alone', async () => {
    const { late, passed, from } = await stranded()
    await claim(one, 1)
    expect(await reseat(two, passed, from)).toMatchObject({ remaining: false })
    expect(await value(database, 'select state from pullgate.job where id = $1', [late[0]])).toBe('running')
    expect(ids(await claim(database, 5, passed))).toEqual(late.slice(1))
  })
  test('is seated anew so many at a time, in their order', async () => {
    const { late, passed, from } = await stranded()
    expect(await reseat(database, passed, from, 2)).toMatchObject({ remaining: true })
    expect(await reseat(database, passed, from, 2)).toMatchObject({ remaining: false })
    expect(ids(await claim(database, 5, passed))).toEqual(late)
  })
})

test('a claim never returns a job at or below its lane’s mark, in the lane or in its twin', async () => {
  const all = await published(6)
  const lane = await value(database, 'select lane_id from pullgate.job where id = $1', [all[0]])
  const marks = { lanes: [lane], marks: [String(await seqOf(all[2] ?? ''))] }
  expect(ids(await claim(database, 2, marks))).toEqual(all.slice(3, 5))
  expect(ids(await claim(database, 9, marks))).toEqual(all.slice(5))
  // Not even as what is left.
  expect(ids(await claim(database, 9, marks))).toEqual([])
  expect(ids(await claim(database, 9))).toEqual(all.slice(0, 3))
})

describe('mark_of', () => {
  const markOf = (lane: string, lanes: string[]) => {
    const marks = lanes.map((_, index) => index + 1)
    const sql = 'select pullgate.mark_of($1::bigint, $2::bigint[], $3::bigint[])::integer'
    return value(database, sql, [lane, lanes, marks])
  }
  const lanes = ['-9223372036854775808', '-5', '0', '7', '9223372036854775807']
  test.each(lanes.map((lane, index) => ({ lane, mark: index + 1 })))(
    'finds that of lane $lane among others',
    async ({ lane, mark }) => {
      expect(await markOf(lane, lanes)).toBe(mark)
      expect(await markOf(lane, [lane])).toBe(1)
    },
  )
  test('is 0 for a lane that has none, so that it is walked', async () => {
    for (const lane of ['-6', '6', '8']) expect(await markOf(lane, lanes)).toBe(0)
    expect(await markOf('7', [])).toBe(0)
  })
  test('of lanes out of order is none or the right one', async () => {
    for (const lane of ['7', '-5']) expect([0, 1, 2]).toContain(await markOf(lane, ['7', '-5']))
    expect(await markOf('7', ['7', '-5'])).not.toBe(2)
    expect(await markOf('-5', ['7', '-5'])).not.toBe(1)
  })
  test('is inlined where a look calls it', async () => {
    const plan = await rows<{ 'QUERY PLAN': string }>(
      database,
      `explain (verbose, costs off) select pullgate.mark_of(l.id, '{1}', '{2}') from pullgate.lane l`,
    )
    expect(JSON.stringify(plan)).not.toContain('mark_of')
  })
})
