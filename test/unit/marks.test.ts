import { describe, expect, test } from 'vitest'
import { createMarks } from '../../src/dispatch/marks.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { AdvanceResult } from '../../src/domain/ports.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { createFakeWatchStore } from '../support/fake-job-store.ts'

const pair = (upto: number, fence: number) => ({ upto: BigInt(upto), fence: BigInt(fence), at: `at ${upto}` })

function setUp() {
  const clock = createFakeClock()
  const store = createFakeWatchStore()
  const events: GatewayEvent[] = []
  const reseated: string[] = []
  const marks = createMarks({
    ...{ store, clock },
    emit: (event) => void events.push(event),
    onReseated: (topics) => void reseated.push(...topics),
  })
  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  async function answer(result: Partial<AdvanceResult> & Pick<AdvanceResult, 'pair'>) {
    store.advanceMarks.next().resolve({ passed: null, running: [], ...result })
    await idle()
  }
  /** A pass that sets one lane of topic a. */
  const passed = (mark: number, dueAfter = `due ${mark}`) => ({
    topics: ['a'],
    lanes: ['10'],
    marks: [String(mark)],
    dueAfter,
  })
  /** A pair is drawn and applied; the mark stands at 50, the next pair at (200, 20). */
  async function first() {
    marks.claimed('a', 100)
    await advance(100)
    await answer({ pair: pair(100, 10) })
    await advance(100)
    await answer({ pair: pair(200, 20), passed: passed(50) })
  }
  /** Goes on with more claims, so that the pair is asked about again. */
  async function work(ms = 100) {
    marks.claimed('a', 100)
    await advance(ms)
  }
  async function reseat(topics: readonly string[] = [], remaining = false) {
    store.reseat.next().resolve({ topics, remaining })
    await idle()
  }
  return { clock, store, events, reseated, marks, advance, answer, passed, first, work, reseat }
}

describe('marks move', () => {
  test('100 ms after 100 jobs were claimed, not for fewer', async () => {
    const { marks, store, advance } = setUp()
    marks.claimed('a', 99)
    await advance(10_000)
    expect(store.advanceMarks.total()).toBe(0)
    marks.claimed('b', 1)
    await advance(99)
    expect(store.advanceMarks.total()).toBe(0)
    await advance(1)
    expect(store.advanceMarks.next().args[0]).toEqual({
      topics: ['a', 'b'],
      marks: { lanes: [], marks: [] },
      dueAfter: null,
      pair: null,
      leftOut: [],
    })
  })
  test('when the pair that was drawn before is applied, and rest until there are claims again', async () => {
    const { marks, store, advance, answer, first, passed, work } = setUp()
    await first()
    expect([marks.of(['a']), marks.of(['b']), marks.dueAfter]).toEqual([
      { lanes: ['10'], marks: ['50'] },
      { lanes: [], marks: [] },
      'due 50',
    ])
    await advance(10_000)
    expect(store.advanceMarks.open).toHaveLength(0)
    await work()
    expect(store.advanceMarks.next().args[0]).toMatchObject({
      marks: { lanes: ['10'], marks: ['50'] },
      dueAfter: 'due 50',
      pair: pair(200, 20),
    })
    await answer({ pair: pair(300, 30), passed: passed(200) })
    expect(marks.of(['a'])).toEqual({ lanes: ['10'], marks: ['200'] })
  })
  test('not while a transaction below the fence runs: the same pair is asked about again', async () => {
    const { marks, store, advance, answer, first, work } = setUp()
    await first()
    await work()
    await answer({ pair: pair(200, 20), running: [7n] })
    await advance(100)
    expect(store.advanceMarks.next().args[0]).toMatchObject({ pair: pair(200, 20), leftOut: [] })
    expect(marks.of(['a']).marks).toEqual(['50'])
  })
  test('again a second after a statement that failed', async () => {
    const { store, events, advance, work } = setUp()
    await work()
    store.advanceMarks.next().reject(new Error('away'))
    await idle()
    expect(events).toMatchObject([{ type: 'upkeep failed', task: 'marks' }])
    await advance(999)
    expect(store.advanceMarks.open).toHaveLength(0)
    await advance(1)
    expect(store.advanceMarks.open).toHaveLength(1)
  })
  test('no more once stopped', async () => {
    const { marks, store, advance } = setUp()
    marks.claimed('a', 100)
    marks.stop()
    await advance(1_000)
    expect(store.advanceMarks.total()).toBe(0)
  })
})

describe('a transaction that runs for long', () => {
  /** Transaction 7 holds the pair back for more than a second, and is left out. */
  async function leftOut() {
    const world = setUp()
    const { first, work, answer, advance, store } = world
    await first()
    await work()
    for (let n = 0; n < 11; n += 1) {
      await answer({ pair: pair(200, 20), running: [7n] })
      await advance(100)
    }
    expect(store.advanceMarks.next().args[0]).toMatchObject({ leftOut: [7n] })
    return world
  }
  test('is left out after a second, so that marks move on', async () => {
    const { answer, passed, marks, store } = await leftOut()
    await answer({ pair: pair(300, 30), passed: passed(200), running: [7n] })
    expect(marks.of(['a']).marks).toEqual(['200'])
    expect(store.reseat.total()).toBe(0)
    expect(marks.longTransactions).toBe(1)
  })
  test('is looked after also when nothing is claimed any more', async () => {
    const { answer, passed, advance, store } = await leftOut()
    await answer({ pair: pair(300, 30), passed: passed(200), running: [7n] })
    await advance(100)
    expect(store.advanceMarks.next().args[0]).toMatchObject({ leftOut: [7n] })
  })
  test('has what it left behind seated anew when it ends, from where the marks stood when it was listed', async () => {
    const { answer, passed, advance, reseat, reseated, store, marks } = await leftOut()
    await answer({ pair: pair(300, 30), passed: passed(200), running: [7n] })
    await advance(100)
    await answer({ pair: pair(400, 40), passed: passed(300) })
    // What it left to fall due may lie before what was seen in this pass.
    expect([marks.dueAfter, marks.of(['a']).marks]).toEqual([null, ['300']])
    expect(marks.longTransactions).toBe(0)
    expect(store.reseat.next().args).toEqual([{ lanes: ['10'], marks: ['300'] }, 100n, 500])
    await reseat(['a'])
    expect([reseated, store.reseat.total()]).toEqual([['a'], 1])
    await advance(9_000)
    expect(store.advanceMarks.open).toHaveLength(0)
  })
  test('has more than a statement takes seated at once; what is locked is asked for again later', async () => {
    const { answer, passed, advance, reseat, reseated, store } = await leftOut()
    await answer({ pair: pair(300, 30), passed: passed(200), running: [7n] })
    await advance(100)
    await answer({ pair: pair(400, 40), passed: passed(300) })
    await reseat(['a'], true)
    await reseat([], true)
    expect([reseated, store.reseat.open.length]).toEqual([['a'], 0])
    await advance(100)
    await answer({ pair: pair(400, 40), running: [50n] })
    expect(store.reseat.next().args.slice(1)).toEqual([100n, 500])
    await reseat(['a'])
    await advance(9_000)
    expect(store.advanceMarks.open).toHaveLength(0)
  })
  test('is asked for once more where a statement failed', async () => {
    const { answer, passed, advance, store, events } = await leftOut()
    await answer({ pair: pair(300, 30), passed: passed(200), running: [7n] })
    await advance(100)
    await answer({ pair: pair(400, 40), passed: passed(300) })
    store.reseat.next().reject(new Error('away'))
    await idle()
    expect(events).toMatchObject([{ type: 'upkeep failed', task: 'marks' }])
    await advance(1_000)
    await answer({ pair: pair(400, 40), running: [50n] })
    expect(store.reseat.next().args.slice(1)).toEqual([100n, 500])
  })
})

describe('whatever is wrong with a mark is over after a minute: it is found anew from nothing', () => {
  const nothing = { topics: ['a'], dueAfter: null, marks: { lanes: [], marks: [] } }
  const soFar = { topics: ['a'], marks: { lanes: ['10'] } }
  async function checking() {
    const all = setUp()
    await all.first()
    await all.work(59_800)
    expect(all.store.advanceMarks.next().args[0]).toMatchObject(soFar)
    all.store.advanceMarks.next().resolve({ passed: all.passed(60), pair: pair(300, 30), running: [] })
    await idle()
    await all.work(200)
    expect(all.store.advanceMarks.next().args[0]).toMatchObject({ ...nothing, pair: pair(300, 30) })
    return all
  }
  test('while claims go on from where it stands', async () => {
    const { marks, answer, passed, work, store } = await checking()
    expect([marks.of(['a']).marks, marks.dueAfter]).toEqual([['60'], 'due 60'])
    // The pair does not pass yet.
    await answer({ pair: pair(300, 30), running: [7n] })
    await work()
    expect(store.advanceMarks.next().args[0]).toMatchObject(nothing)
    await answer({ pair: pair(400, 40), passed: passed(55) })
    expect([marks.of(['a']).marks, marks.dueAfter]).toEqual([['55'], 'due 55'])
    await work()
    expect(store.advanceMarks.next().args[0]).toMatchObject({ ...soFar, dueAfter: 'due 55' })
  })
  test('less often where that takes long, also where it fails', async () => {
    const { clock, answer, passed, work, store } = await checking()
    // It was asked 100 ms ago.
    clock.advance(900)
    await answer({ pair: pair(400, 40), passed: passed(70) })
    await work(99_900)
    expect(store.advanceMarks.next().args[0]).toMatchObject(soFar)
    await answer({ pair: pair(500, 50), passed: passed(80) })
    await work(100)
    expect(store.advanceMarks.next().args[0]).toMatchObject(nothing)
    clock.advance(2_000)
    store.advanceMarks.next().reject(new Error('it took too long'))
    await idle()
    await work(1_000)
    expect(store.advanceMarks.next().args[0]).toMatchObject(soFar)
    await answer({ pair: pair(500, 50), passed: passed(90) })
    await work(208_000)
    expect(store.advanceMarks.next().args[0]).toMatchObject(soFar)
  })
})

test('marks of topics with pulls move also where others claim: every 10 s', async () => {
  const { marks, store, advance } = setUp()
  marks.refresh(['a'])
  await advance(10_000)
  expect(store.advanceMarks.total()).toBe(0)
  marks.refresh([])
  await advance(100)
  expect(store.advanceMarks.total()).toBe(0)
  marks.refresh(['a'])
  await advance(100)
  expect(store.advanceMarks.next().args[0]).toMatchObject({ topics: ['a'] })
})

test('a promoted server whose sequence stands below the pair that was drawn is another one', async () => {
  const { first, work, answer, marks } = setUp()
  await first()
  await work()
  await answer({
    pair: pair(150, 3),
    passed: { topics: ['a'], lanes: ['10'], marks: ['150'], dueAfter: 'x' },
  })
  expect([marks.of(['a']).lanes, marks.dueAfter]).toEqual([[], null])
})

test('a sequence that went back is another server’s: everything is forgotten', async () => {
  const { first, work, answer, marks, store } = setUp()
  await first()
  await work()
  await answer({ pair: pair(60, 3), passed: { topics: ['a'], lanes: ['10'], marks: ['60'], dueAfter: 'x' } })
  expect([marks.of(['a']).lanes, marks.dueAfter]).toEqual([[], null])
  await work()
  expect(store.advanceMarks.next().args[0]).toMatchObject({ pair: null, leftOut: [] })
})

test('an answer to what was asked before everything was forgotten counts for nothing', async () => {
  const { first, work, answer, passed, marks } = setUp()
  await first()
  await work()
  marks.forget()
  await answer({ pair: pair(300, 30), passed: passed(200) })
  expect([marks.of(['a']).lanes, marks.dueAfter]).toEqual([[], null])
})
