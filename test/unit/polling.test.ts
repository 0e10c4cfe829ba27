import { describe, expect, test } from 'vitest'
import { createArmingWorld } from '../support/fake-arming.ts'
import { createPolling } from '../../src/dispatch/polling.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { fakeCall } from '../support/fake-job-store.ts'

test('notifications beyond the budget, of 100 a second and 20 at once, make their topic hot', async () => {
  const { quiet, arming, spendAll, clock, store, advance } = createArmingWorld()
  await quiet('a')
  spendAll()
  clock.advance(10)
  expect(arming.notified('a', 'ready')).toBe(true)
  expect(arming.notified('a', 'ready')).toBe(false)
  await advance(0)
  expect(store.disarm.next().args).toEqual(['g', ['a']])
  expect([arming.armed, arming.polled]).toEqual([0, 1])
})

test('a topic that nobody waits for, or that is not armed here, does not become hot', async () => {
  const { quiet, arming, spendAll, lonely } = createArmingWorld()
  await quiet('a')
  lonely.add('a')
  spendAll()
  expect([arming.notified('a', 'ready'), arming.notified('b', 'ready'), arming.polled]).toEqual([
    true,
    true,
    0,
  ])
})

test('a flood of notifications, another 20 beyond the budget, makes all topics hot at once', async () => {
  const { quiet, arming, spendAll, lonely } = createArmingWorld()
  for (const topic of ['a', 'b', 'c']) await quiet(topic)
  lonely.add('c')
  spendAll()
  for (let n = 0; n < 19; n += 1) arming.notified('elsewhere', 'ready')
  expect(arming.polled).toBe(0)
  arming.notified('elsewhere', 'ready')
  expect([arming.polled, arming.armed]).toEqual([2, 1])
})

function heated(...topics: string[]) {
  const clock = createFakeClock()
  const kicks: string[] = []
  const lonely = new Set<string>()
  const errors: unknown[] = []
  const look = fakeCall<[readonly string[]], readonly string[]>()
  let looks = 0
  const polling = createPolling({
    clock,
    kick: (topic) => void kicks.push(`${topic} ${clock.now() - begun}`),
    look,
    isWaitedFor: (topic) => !lonely.has(topic),
    lookAhead: () => void (looks += 1),
    onError: (error) => void errors.push(error),
  })
  const begun = clock.now()
  for (const topic of topics) polling.heat(topic)
  return { clock, kicks, lonely, errors, look, polling, looks: () => looks }
}

test('each tick kicks every hot topic once', () => {
  const { clock, kicks } = heated('a', 'b')
  clock.advance(2)
  expect(kicks).toEqual(['a 2', 'b 2'])
})

test('a tick does nothing for topics that nobody waits for', () => {
  const { clock, kicks, lonely } = heated('a', 'b')
  lonely.add('a')
  clock.advance(2)
  expect(kicks).toEqual(['b 2'])
})

const many = Array.from({ length: 9 }, (_, n) => `t${n}`)

test('of more than 8 topics one look finds those to kick; the others are dry', async () => {
  const { clock, kicks, look, polling } = heated(...many)
  clock.advance(2)
  expect([kicks, look.next().args]).toEqual([[], [many]])
  clock.advance(100)
  expect(look.total()).toBe(1)
  look.next().resolve(['t3'])
  await idle()
  expect(kicks).toEqual(['t3 102'])
  expect([polling.isDry('t3'), polling.isDry('t4')]).toEqual([false, true])
  // The look took 100 ms: two thirds of the time are left to others.
  clock.advance(199)
  expect(look.total()).toBe(1)
  clock.advance(1)
  expect(look.total()).toBe(2)
})

test('a look that fails is reported, and the next tick looks again', async () => {
  const { clock, look, errors } = heated(...many)
  clock.advance(2)
  look.next().reject(new Error('away'))
  await idle()
  clock.advance(10)
  expect([errors, look.total()]).toEqual([[new Error('away')], 2])
})

test('ticks are 2 ms apart while they find something, up to 10 as time goes by without', () => {
  const { clock, kicks, polling } = heated('a')
  clock.advance(100)
  const times = () => kicks.map((kick) => Number(kick.slice(2)))
  const pauses = times().map((time, index, all) => time - (all[index - 1] ?? 0))
  expect(pauses.slice(0, 6)).toEqual([2, 2, 2, 2, 2, 2.5])
  expect(pauses.at(-1)).toBe(10)
  kicks.length = 0
  polling.claimed('a', { jobs: 1, short: true })
  clock.advance(14)
  const [first = 0, second = 0] = times()
  expect(second - first).toBeLessThan(4)
})

test('a hot topic whose last claim found less than was wanted is dry', () => {
  const { polling } = heated('a')
  expect([polling.isDry('a'), polling.isDry('b')]).toEqual([false, false])
  polling.claimed('a', { jobs: 1, short: true })
  expect(polling.isDry('a')).toBe(true)
  polling.claimed('a', { jobs: 2, short: false })
  expect(polling.isDry('a')).toBe(false)
})

test('a topic cools when its ticks have found nothing for 2 s; the others stay hot', () => {
  const { clock, kicks, polling } = heated('a', 'b')
  clock.advance(1_990)
  polling.claimed('b', { jobs: 1, short: true })
  polling.claimed('a', { jobs: 0, short: true })
  clock.advance(30)
  expect([polling.isHot('a'), polling.isHot('b'), polling.hot]).toEqual([false, true, 1])
  clock.advance(2_000)
  expect(polling.hot).toBe(0)
  kicks.length = 0
  clock.advance(1_000)
  expect([kicks, clock.timers()]).toEqual([[], []])
})

test('while a topic is hot somebody looks ahead every 100 ms: its jobs that fall due soon are not announced', () => {
  const { clock, looks } = heated('a')
  clock.advance(1_000)
  expect(looks()).toBeGreaterThanOrEqual(9)
  expect(looks()).toBeLessThanOrEqual(11)
})

test('a topic that has cooled is armed by its next claim that comes back short', async () => {
  const { quiet, arming, spendAll, store, advance, claim, kicks, armed, see } = createArmingWorld()
  await quiet('a')
  spendAll()
  arming.notified('a', 'ready')
  await claim('a')
  expect(arming.covers('a')).toBe(true)
  store.disarm.next().resolve(undefined)
  await advance(2_100)
  expect([arming.polled, kicks.at(-1)]).toEqual([0, 'a tick'])
  expect(arming.covers('a')).toBe(false)
  const before = store.arm.total()
  await claim('a')
  expect(store.arm.total()).toBe(before + 1)
  await armed()
  await advance(0)
  await see()
  expect(arming.covers('a')).toBe(true)
})

test('a listener that was lost leaves no topic hot', async () => {
  const { quiet, arming, spendAll, kicks, advance } = createArmingWorld()
  await quiet('a')
  spendAll()
  arming.notified('a', 'ready')
  arming.deaf(false)
  await advance(100)
  expect([arming.polled, arming.covers('a'), kicks]).toEqual([0, false, []])
})

describe('where nothing is heard', () => {
  test('a topic whose claim came back short is polled for as long as it is waited for, in ticks of up to 200 ms', async () => {
    const { arming, claim, clock, kicks, lonely, store } = createArmingWorld()
    arming.deaf(true)
    await claim('a', { waiting: false })
    expect(arming.polled).toBe(0)
    await claim('a')
    expect([arming.polled, store.arm.total()]).toEqual([1, 0])
    clock.advance(10_000)
    // Each of the world's steps took a millisecond.
    expect(kicks.length).toBeGreaterThanOrEqual(49)
    expect(kicks.length).toBeLessThanOrEqual(51)
    lonely.add('a')
    clock.advance(200)
    expect([arming.polled, clock.timers()]).toEqual([0, []])
  })

  test('ticks are close after one that found something', async () => {
    const { arming, claim, clock, kicks } = createArmingWorld()
    arming.deaf(true)
    await claim('a')
    clock.advance(200)
    await claim('a', { jobs: 1 })
    kicks.length = 0
    clock.advance(20)
    expect(kicks.length).toBeGreaterThan(5)
  })

  test('a pull that arrives gets its claim: the next tick may be far', async () => {
    const { arming, claim } = createArmingWorld()
    arming.deaf(true)
    await claim('a')
    await claim('a')
    expect([arming.polled, arming.covers('a')]).toEqual([1, false])
  })

  test('once it is heard again topics are armed, and busy ones cool, as before', async () => {
    const { arming, claim, quiet, store, spendAll, clock } = createArmingWorld()
    arming.deaf(true)
    await claim('a')
    arming.listening()
    expect(arming.polled).toBe(0)
    await quiet('a')
    expect([arming.armed, store.arm.total()]).toEqual([1, 1])
    spendAll()
    arming.notified('a', 'ready')
    expect(arming.polled).toBe(1)
    clock.advance(2_100)
    expect(arming.polled).toBe(0)
  })
})
