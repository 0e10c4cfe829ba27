import { describe, expect, test } from 'vitest'
import { idle } from '../support/fake-clock.ts'
import { backstopMs, createDueWorld } from '../support/fake-due-work.ts'

describe('the due timer', () => {
  test('runs what is due a little before the instant that the look-ahead saw: the database waits for the rest', async () => {
    const { work, store, see, advance, due, kicks, events } = createDueWorld()
    work.start()
    await see({ dueInMs: 300.2 })
    await advance(295)
    expect(store.runDue.total()).toBe(0)
    await advance(1)
    expect(store.runDue.total()).toBe(1)
    await due({ topics: ['a'], promoted: 2, leasesLost: { ready: 1 }, offersEnded: { failed: 1 } })
    expect(kicks).toEqual(['a due'])
    expect(events).toEqual([
      { type: 'due', promoted: 2, expired: 0, leasesLost: { ready: 1 }, offersEnded: { failed: 1 } },
    ])
  })

  test('is set by a job that was announced, before the next backstop', async () => {
    const { work, store, see, advance } = createDueWorld()
    work.start()
    await see()
    await advance(100)
    work.lookAhead()
    await see({ dueInMs: 50 })
    await advance(50)
    expect(store.runDue.total()).toBe(1)
  })

  test('goes on while there is more, then looks when the next one is', async () => {
    const { work, store, see, advance, due } = createDueWorld()
    work.start()
    await see({ dueInMs: 0 })
    await advance(0)
    await due({ promoted: 500, more: true })
    expect(store.runDue.total()).toBe(2)
    expect(store.look.total()).toBe(1)
    await due({ promoted: 3 })
    expect(store.runDue.total()).toBe(2)
    expect(store.look.total()).toBe(2)
    await see({ dueInMs: 0 })
    await advance(0)
    expect(store.runDue.total()).toBe(3)
  })

  test('pauses 25 ms when it was due and nothing could be done: somebody else holds it', async () => {
    const { work, store, see, advance, due } = createDueWorld()
    work.start()
    for (let round = 1; round <= 3; round += 1) {
      await see({ dueInMs: 0 })
      await advance(round === 1 ? 0 : 24)
      expect(store.runDue.total()).toBe(round === 1 ? 1 : round - 1)
      await advance(1)
      expect(store.runDue.total()).toBe(round)
      await due()
    }
  })

  test('that pauses is not put off by further announcements', async () => {
    const { work, store, see, advance, due } = createDueWorld()
    work.start()
    await see({ dueInMs: 0 })
    await advance(0)
    await due()
    await see({ dueInMs: 0 })
    for (let n = 0; n < 10; n += 1) {
      work.lookAhead()
      await see({ dueInMs: 0 })
      await advance(10)
    }
    expect(store.runDue.total()).toBe(2)
  })

  test('that fails is tried again after the backstop interval: no busy loop', async () => {
    const { work, store, see, advance, events } = createDueWorld()
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

describe('due work that claims in the same statement', () => {
  test('is asked of the topic that the look-ahead named, and kicks only the others that have jobs', async () => {
    const { work, store, see, advance, open, claimDue, dueClaimed, kicks, events } = createDueWorld()
    open.add('a')
    work.start()
    await see({ dueInMs: 300, dueTopic: 'a' })
    await advance(295)
    expect(claimDue.next().args[0]).toBe('a')
    expect(store.runDue.total()).toBe(0)
    await dueClaimed({ topics: ['b', 'a'], promoted: 2 })
    expect(kicks).toEqual(['b due'])
    expect(events).toEqual([{ type: 'due', promoted: 2, expired: 0, leasesLost: {}, offersEnded: {} }])
    expect(store.look.total()).toBe(2)
  })

  test.each([
    { dueTopic: null, when: 'no topic was named' },
    { dueTopic: 'b', when: 'the dispatcher says no' },
  ])('is not where $when', async ({ dueTopic }) => {
    const { work, store, see, advance, open, claimDue, due, kicks } = createDueWorld()
    open.add('a')
    work.start()
    await see({ dueInMs: 0, dueTopic })
    await advance(0)
    expect([claimDue.total(), store.runDue.total()]).toEqual([0, 1])
    await due({ topics: ['b'], promoted: 1 })
    expect(kicks).toEqual(['b due'])
  })

  test('is for the topic whose instant comes first, by whomever it was seen', async () => {
    const { work, see, advance, open, claimDue } = createDueWorld()
    for (const topic of ['a', 'b', 'c']) open.add(topic)
    work.start()
    await see({ dueInMs: 300, dueTopic: 'a' })
    work.saw(200, 'b')
    work.saw(250, 'c')
    await advance(195)
    expect(claimDue.open.map(({ args: [topic] }) => topic)).toEqual(['b'])
  })

  test('goes on without claiming while there is more', async () => {
    const { work, store, see, advance, open, claimDue, dueClaimed, due, kicks } = createDueWorld()
    open.add('a')
    work.start()
    await see({ dueInMs: 0, dueTopic: 'a' })
    await advance(0)
    await dueClaimed({ topics: ['a'], promoted: 500, more: true })
    expect([claimDue.total(), store.runDue.total()]).toEqual([1, 1])
    await due({ topics: ['a'], promoted: 3 })
    expect(kicks).toEqual(['a due'])
  })

  test('that fails is tried again after the backstop interval', async () => {
    const { work, store, see, advance, open, claimDue, events } = createDueWorld()
    open.add('a')
    work.start()
    await see({ dueInMs: 0, dueTopic: 'a' })
    await advance(0)
    const error = new Error('no database')
    claimDue.next().reject(error)
    await idle()
    expect(events).toEqual([{ type: 'upkeep failed', task: 'due', error }])
    await see({ dueInMs: 0, dueTopic: 'a' })
    await advance(backstopMs - 1)
    expect([claimDue.total(), store.runDue.total()]).toEqual([1, 0])
    await advance(1)
    expect([claimDue.total(), store.runDue.total()]).toEqual([2, 0])
  })
})
