import { describe, expect, test } from 'vitest'
import { createDueWork } from '../../src/dispatch/due-work.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { BackstopResult, DueResult } from '../../src/domain/ports.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { createFakeJobStore } from '../support/fake-job-store.ts'

const backstopMs = 1_000

function setUp(options: { random?: number; parked?: number } = {}) {
  const clock = createFakeClock({ random: () => options.random ?? 0 })
  const store = createFakeJobStore()
  const events: GatewayEvent[] = []
  const kicks: string[] = []
  const ended: string[] = []
  const dispatcher = {
    parked: options.parked ?? 1,
    topicsWithWaiters: () => ['a', 'b'],
    kick: (topic: string, cause: string) => (kicks.push(`${topic} ${cause}`), 'woke' as const),
    endSubscriptions: (ids: readonly string[]) => void ended.push(...ids),
  }
  const emit = (event: GatewayEvent) => void events.push(event)
  const work = createDueWork({ store, dispatcher, clock, emit, backstopMs })

  /** Answers the look that is under way. */
  async function see(result: Partial<BackstopResult> = {}) {
    store.backstop.next().resolve({ readyTopics: [], ended: [], dueInMs: null, ...result })
    await idle()
  }
  async function due(result: Partial<DueResult> = {}) {
    store.runDue.next().resolve({ ...nothing, ...result })
    await idle()
  }
  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  return { clock, store, events, kicks, ended, work, dispatcher, see, due, advance }
}

const nothing: DueResult = {
  topics: [],
  promoted: 0,
  expired: 0,
  leasesChecked: 0,
  leasesLost: {},
  more: false,
}

describe('the backstop', () => {
  test('asks about the topics that have waiters, and kicks those that have jobs', async () => {
    const { work, store, see, kicks, ended } = setUp()
    work.start()
    expect(store.backstop.next().args).toEqual([['a', 'b']])
    await see({ readyTopics: ['b'], ended: ['s'] })
    expect(kicks).toEqual(['b backstop'])
    expect(ended).toEqual(['s'])
  })

  test.each([
    { parked: 1, random: 0, ms: 1_000 },
    { parked: 1, random: 0.999, ms: 1_100 },
    { parked: 0, random: 0, ms: 5_000 },
    { parked: 0, random: 0.999, ms: 5_500 },
  ])('comes every $ms ms with $parked parked and random $random', async ({ parked, random, ms }) => {
    const { work, store, see, clock, advance } = setUp({ parked, random })
    work.start()
    await see()
    expect(Math.ceil(clock.timers()[0] ?? 0)).toBe(ms)
    await advance(ms - 2)
    expect(store.backstop.total()).toBe(1)
    await advance(2)
    expect(store.backstop.total()).toBe(2)
  })

  test('never runs twice at once, and looks again when asked meanwhile, once', async () => {
    const { work, store, see } = setUp()
    work.start()
    work.lookAhead()
    work.lookAhead()
    expect(store.backstop.total()).toBe(1)
    await see()
    expect(store.backstop.total()).toBe(2)
    await see()
    expect(store.backstop.total()).toBe(2)
  })

  test('that fails comes again at its interval, not at once', async () => {
    const { work, store, clock, events, advance } = setUp()
    work.start()
    const error = new Error('no database')
    store.backstop.next().reject(error)
    await idle()
    expect(events).toEqual([{ type: 'upkeep failed', task: 'backstop', error }])
    expect(clock.timers()).toEqual([backstopMs])
    await advance(backstopMs)
    expect(store.backstop.total()).toBe(2)
  })
})

describe('the due timer', () => {
  test('runs what is due at the instant that the look-ahead saw', async () => {
    const { work, store, see, advance, due, kicks, events } = setUp()
    work.start()
    await see({ dueInMs: 300.2 })
    await advance(300)
    expect(store.runDue.total()).toBe(0)
    await advance(1)
    expect(store.runDue.total()).toBe(1)
    await due({ topics: ['a'], promoted: 2, leasesLost: { ready: 1 } })
    expect(kicks).toEqual(['a due'])
    expect(events).toEqual([{ type: 'due', promoted: 2, expired: 0, leasesLost: { ready: 1 } }])
  })

  test('is set by a job that was announced, before the next backstop', async () => {
    const { work, store, see, advance } = setUp()
    work.start()
    await see()
    await advance(100)
    work.lookAhead()
    await see({ dueInMs: 50 })
    await advance(50)
    expect(store.runDue.total()).toBe(1)
  })

  test('goes on while there is more, then looks when the next one is', async () => {
    const { work, store, see, advance, due } = setUp()
    work.start()
    await see({ dueInMs: 0 })
    await advance(0)
    await due({ promoted: 500, more: true })
    expect(store.runDue.total()).toBe(2)
    expect(store.backstop.total()).toBe(1)
    await due({ promoted: 3 })
    expect(store.runDue.total()).toBe(2)
    expect(store.backstop.total()).toBe(2)
    await see({ dueInMs: 0 })
    await advance(0)
    expect(store.runDue.total()).toBe(3)
  })

  test('pauses 25 ms when it was due and nothing could be done: somebody else holds it', async () => {
    const { work, store, see, advance, due } = setUp()
    work.start()
    for (let round = 1; round <= 3; round += 1) {
      await see({ dueInMs: 0 })
      await advance(round === 1 ? 0 : 24)
      expect(store.runDue.total()).toBe(round === 1 ? 1 : round - 1)
      await advance(1)
      expect(store.runDue.total()).toBe(round)
      await due(nothing)
    }
  })

  test('that pauses is not put off by further announcements', async () => {
    const { work, store, see, advance, due } = setUp()
    work.start()
    await see({ dueInMs: 0 })
    await advance(0)
    await due(nothing)
    await see({ dueInMs: 0 })
    for (let n = 0; n < 10; n += 1) {
      work.lookAhead()
      await see({ dueInMs: 0 })
      await advance(10)
    }
    expect(store.runDue.total()).toBe(2)
  })

  test('that fails is tried again after the backstop interval: no busy loop', async () => {
    const { work, store, see, advance, events } = setUp()
    work.start()
    await see({ dueInMs: 0 })
    await advance(0)
    const error = new Error('no database')
    store.runDue.next().reject(error)
    await idle()
    expect(events).toEqual([{ type: 'upkeep failed', task: 'due', error }])
    await see({ dueInMs: 0 })
    await advance(backstopMs - 1)
    expect(store.runDue.total()).toBe(1)
    await advance(1)
    expect(store.runDue.total()).toBe(2)
  })
})

describe('stop', () => {
  test('waits for what is under way, and starts nothing any more', async () => {
    const { work, store, see, advance, due, clock, kicks } = setUp()
    work.start()
    await see({ dueInMs: 0 })
    await advance(0)
    work.lookAhead()
    let stopped = false
    void work.stop().then(() => (stopped = true))
    await due({ topics: ['a'], promoted: 500, more: true })
    expect([stopped, store.runDue.total()]).toEqual([false, 1])
    await see({ dueInMs: 0 })
    expect(stopped).toBe(true)
    clock.advance(60_000)
    work.lookAhead()
    await idle()
    expect([store.runDue.total(), store.backstop.total()]).toEqual([1, 2])
    expect(kicks).toEqual(['a due'])
  })

  test('with nothing under way is at once', async () => {
    const { work, see, clock } = setUp()
    work.start()
    await see({ dueInMs: 500 })
    await work.stop()
    expect(clock.timers()).toEqual([])
  })
})
