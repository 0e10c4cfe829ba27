import { describe, expect, test } from 'vitest'
import { idle } from '../support/fake-clock.ts'
import { backstopMs, createDueWorld } from '../support/fake-due-work.ts'

describe('the backstop', () => {
  test('asks about the topics that have waiters, and kicks those that have jobs', async () => {
    const { work, store, see, kicks, ended } = createDueWorld()
    work.start()
    expect(store.look.next().args[0]).toMatchObject({ topics: ['a', 'b'], readyMs: 100, fence: false })
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
    const { work, store, see, advance } = createDueWorld({ parked, random })
    work.start()
    await see()
    await advance(ms - 2)
    expect(store.look.total()).toBe(1)
    await advance(2)
    expect(store.look.total()).toBe(2)
  })

  test('comes within its interval also for a pull that came when nobody waited', async () => {
    const { work, store, see, dispatcher, advance } = createDueWorld({ parked: 0, random: 0.999 })
    work.start()
    await see()
    await advance(100)
    dispatcher.parked = 1
    await advance(1_100)
    expect(store.look.total()).toBe(2)
  })

  test('never runs twice at once, and looks again when asked meanwhile, once', async () => {
    const { work, store, see } = createDueWorld()
    work.start()
    work.lookAhead()
    work.lookAhead()
    expect(store.look.total()).toBe(1)
    await see()
    expect(store.look.total()).toBe(2)
    await see()
    expect(store.look.total()).toBe(2)
  })

  test('is not put off by looking ahead, which asks about no topic', async () => {
    const { work, store, see, advance, kicks } = createDueWorld()
    work.start()
    await see()
    for (let n = 0; n < 9; n += 1) {
      await advance(100)
      work.lookAhead()
      expect(store.look.next().args[0]).toMatchObject({ topics: [] })
      await see()
    }
    await advance(100)
    expect(store.look.next().args[0]).toMatchObject({ topics: ['a', 'b'] })
    work.lookAhead()
    await see({ readyTopics: ['a'] })
    expect([kicks, store.look.next().args[0].topics]).toEqual([['a backstop'], []])
  })

  test('looks for gateways whose lock is free; looking ahead does not', async () => {
    const { work, store, see, unlocked } = createDueWorld()
    work.start()
    expect(store.look.next().args[0]).toMatchObject({ gateways: true })
    work.lookAhead()
    await see({ unlocked: [7, 8] })
    expect(store.look.next().args[0]).toMatchObject({ gateways: false })
    await see()
    expect(unlocked).toEqual([[7, 8]])
  })

  test('that fails comes again at its interval, not at once', async () => {
    const { work, store, clock, events, advance } = createDueWorld()
    work.start()
    const error = new Error('no database')
    store.look.next().reject(error)
    await idle()
    expect(events).toEqual([{ type: 'upkeep failed', task: 'backstop', error }])
    expect(clock.timers()).toEqual([backstopMs])
    await advance(backstopMs)
    expect(store.look.total()).toBe(2)
  })
})

describe('stop', () => {
  test('waits for what is under way, and starts nothing any more', async () => {
    const { work, store, see, advance, due, clock, kicks } = createDueWorld()
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
    expect([store.runDue.total(), store.look.total()]).toEqual([1, 2])
    expect(kicks).toEqual(['a due'])
  })

  test('with nothing under way is at once', async () => {
    const { work, see, clock } = createDueWorld()
    work.start()
    await see({ dueInMs: 500 })
    await work.stop()
    expect(clock.timers()).toEqual([])
  })
})
