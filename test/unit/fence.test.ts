import { expect, test } from 'vitest'
import { createArmingWorld } from '../support/fake-arming.ts'
import { idle } from '../support/fake-clock.ts'

const running = { horizon: 99n }

test('with no publisher in flight one look, at once, closes the fence that it draws', async () => {
  const { claim, armed, advance, store, see, arming, clock } = createArmingWorld()
  await claim('a')
  expect(store.look.total()).toBe(0)
  await armed()
  await advance(0)
  expect(store.look.next().args[0]).toEqual({
    topics: ['a'],
    marks: { lanes: [], marks: [] },
    dueAfter: null,
    readyMs: 0,
    fence: true,
    gateways: false,
  })
  await see()
  expect(arming.covers('a')).toBe(true)
  await advance(900)
  expect(store.look.total()).toBe(1)
  expect(clock.timers()).toHaveLength(1)
})

test('looks follow after 2, 4, 8 … 250 ms while a publisher runs, and compare with the first fence', async () => {
  const { claim, armed, advance, store, see, arming, clock } = createArmingWorld()
  await claim('a')
  await armed()
  const pauses: number[] = []
  await advance(0)
  for (let n = 0; n < 9; n += 1) {
    expect(store.look.next().args[0].fence).toBe(n === 0)
    await see(running)
    const [next = 0] = clock.timers()
    pauses.push(next)
    await advance(next)
  }
  expect(pauses).toEqual([2, 4, 8, 16, 32, 64, 128, 250, 250])
  expect(arming.covers('a')).toBe(false)
  await see({ horizon: 100n })
  expect(arming.covers('a')).toBe(true)
})

test('a publisher that was open before the arm is found at most as long after its commit as it was open, and 250 ms', async () => {
  const { claim, armed, advance, store, see, clock } = createArmingWorld()
  await claim('a')
  await armed()
  const openSince = clock.now()
  let lookedAt = openSince
  for (let n = 0; n < 12; n += 1) {
    while (store.look.total() === n) await advance(clock.timers()[0] ?? 1)
    // It committed just after the look before: its wait for this one is the longest there can be.
    expect(clock.now() - lookedAt).toBeLessThanOrEqual(Math.min(250, lookedAt - openSince + 2))
    lookedAt = clock.now()
    store.look.next()
    await see(running)
  }
  expect(lookedAt - openSince).toBeGreaterThan(1_000)
})

test('all topics that are not fenced share a look, each with its own fence', async () => {
  const { claim, armed, advance, store, see, arming, looked } = createArmingWorld()
  await claim('a')
  await armed()
  await advance(0)
  await see({ ...running, fence: 100n })
  await claim('b')
  await armed()
  await advance(0)
  expect([looked(), store.look.next().args[0].fence]).toEqual([[['a', 'b']], true])
  await see({ fence: 200n, horizon: 150n })
  expect([arming.covers('a'), arming.covers('b')]).toEqual([true, false])
  await advance(2)
  expect(looked()).toEqual([['b']])
  await see({ horizon: 200n })
  expect(arming.covers('b')).toBe(true)
})

test('a topic with a ready job is kicked, and stays open until none is visible', async () => {
  const { claim, armed, advance, see, arming, kicks } = createArmingWorld()
  await claim('a')
  await armed()
  await advance(0)
  await see({ readyTopics: ['a'] })
  expect([kicks, arming.covers('a')]).toEqual([['a fence'], false])
  await advance(2)
  await see({ readyTopics: ['a'] })
  await advance(4)
  await see()
  expect([kicks, arming.covers('a')]).toEqual([['a fence', 'a fence'], true])
})

test('a look that began before the topic was armed anew does not count for it', async () => {
  const { claim, armed, advance, see, arming, store, looked } = createArmingWorld()
  await claim('a')
  await armed()
  await advance(0)
  await advance(11_000)
  // Under way while the renewal finds that the registry had lost the topic.
  expect([looked(), store.arm.open.length]).toEqual([[['a']], 1])
  await armed(['a'])
  await see({ fence: 1_000n, horizon: 1_000n })
  expect(arming.covers('a')).toBe(false)
  await advance(0)
  expect(store.look.next().args[0].fence).toBe(true)
  await see({ fence: 2_000n, horizon: 2_000n })
  expect(arming.covers('a')).toBe(true)
})

test('nobody looks for a topic while nobody waits; the next short claim goes on', async () => {
  const { claim, armed, advance, see, store, lonely, looked } = createArmingWorld()
  await claim('a')
  await armed()
  await advance(0)
  lonely.add('a')
  await see(running)
  await advance(500)
  expect(store.look.open).toHaveLength(0)
  lonely.delete('a')
  await claim('a')
  await advance(4)
  expect(looked()).toEqual([['a']])
})

test('a look that fails is told of, and tried again', async () => {
  const { claim, armed, advance, store, events, see, arming } = createArmingWorld()
  await claim('a')
  await armed()
  await advance(0)
  store.look.next().reject(new Error('away'))
  await idle()
  await advance(2)
  expect(events).toMatchObject([{ type: 'upkeep failed', task: 'fence' }])
  expect(store.look.next().args[0].fence).toBe(true)
  await see()
  expect(arming.covers('a')).toBe(true)
})

test('what falls due soon is passed on', async () => {
  const { claim, armed, advance, see, due } = createArmingWorld()
  await claim('a')
  await armed()
  await advance(0)
  await see({ dueInMs: 700, dueTopic: 'b' })
  expect(due).toEqual([[700, 'b']])
})
