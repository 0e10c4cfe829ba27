import { expect, test } from 'vitest'
import { createUnheardClaims } from '../../src/dispatch/unheard-claims.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { GatewayStore, UnheardClaim } from '../../src/domain/ports.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { fakeCall } from '../support/fake-job-store.ts'

function setUp({ earlyMs = 0 } = {}) {
  const clock = createFakeClock({ earlyMs })
  const store = { giveBackUnheard: fakeCall<Parameters<GatewayStore['giveBackUnheard']>, number>() }
  const events: GatewayEvent[] = []
  const unheard = createUnheardClaims({ store, clock, emit: (event) => void events.push(event) })
  const claim = (id: string, agoMs = 0): UnheardClaim => ({
    ...{ id, subscriptions: ['s'], sentAt: clock.now() - agoMs },
  })
  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  /** Answers the look that is under way; with the claims it asked about, and how far back. */
  async function see(jobs = 0): Promise<[string, number]> {
    const { args, resolve } = store.giveBackUnheard.next()
    resolve(jobs)
    await idle()
    return [args[0].map(({ id }) => id).join(), args[1]]
  }
  return { clock, store, events, unheard, claim, advance, see }
}

test('an unheard claim is looked for at once, then less and less often for two minutes', async () => {
  const { clock, store, unheard, claim, advance, see } = setUp()
  unheard.remember(claim('1', 12_000))
  await advance(0)
  expect(await see()).toEqual(['1', 12])
  const pauses = [1, 2, 4, 8, 16, 32, 64]
  let age = 12
  for (const seconds of pauses) {
    await advance(seconds * 1_000 - 1)
    expect(store.giveBackUnheard.open).toEqual([])
    await advance(1)
    age += seconds
    expect(await see()).toEqual(['1', age])
  }
  expect(clock.timers()).toEqual([])
})

test('what was found is told of', async () => {
  const { events, unheard, claim, advance, see } = setUp()
  unheard.remember(claim('1'))
  await advance(0)
  await see(3)
  expect(events).toEqual([{ type: 'jobs returned', reason: 'answer lost', jobs: 3 }])
})

test('claims that are due together share a look, as far back as the oldest of them', async () => {
  const { unheard, claim, advance, see } = setUp()
  unheard.remember(claim('1', 2_000))
  unheard.remember(claim('2', 500))
  await advance(0)
  expect(await see()).toEqual(['1,2', 2])
  await advance(500)
  unheard.remember(claim('3'))
  await advance(0)
  expect(await see()).toEqual(['3', 0])
  await advance(500)
  expect(await see()).toEqual(['1,2', 3])
})

test('while the database is away it is asked every half second, and what it was not asked counts for nothing', async () => {
  const { store, events, unheard, claim, advance, see } = setUp()
  unheard.remember(claim('1'))
  await advance(0)
  const error = new Error('no database')
  for (let tries = 0; tries < 300; tries += 1) {
    store.giveBackUnheard.next().reject(error)
    await idle()
    await advance(500)
  }
  expect(events[0]).toEqual({ type: 'upkeep failed', task: 'unheard claims', error })
  expect(await see()).toEqual(['1', 150])
  await advance(1_000)
  expect(await see()).toEqual(['1', 151])
})

test('remembers 1,000 claims, the first ones, and tells of each that is too many', async () => {
  const { unheard, claim, advance, store, events } = setUp()
  for (let id = 1; id <= 1_100; id += 1) unheard.remember(claim(String(id)))
  await advance(0)
  const asked = store.giveBackUnheard.next().args[0].map(({ id }) => id)
  expect([asked.length, asked[0], asked.at(-1)]).toEqual([1_000, '1', '1000'])
  expect(events.map((event) => event.type === 'upkeep failed' && event.task)).toEqual(
    Array<string>(100).fill('unheard claims'),
  )
})

test('stop looks for all of them once more, after a look that is under way', async () => {
  const { clock, unheard, claim, advance, see } = setUp()
  unheard.remember(claim('1'))
  await advance(0)
  unheard.remember(claim('2'))
  const stopping = unheard.stop()
  expect(await see()).toEqual(['1', 0])
  expect(await see()).toEqual(['1,2', 0])
  await stopping
  expect(clock.timers()).toEqual([])
})

test('with nothing to look for, stop asks nothing', async () => {
  const { store, unheard } = setUp()
  await unheard.stop()
  expect(store.giveBackUnheard.total()).toBe(0)
})

test('a timer that fires early looks for whom it was set for, and for nothing in vain', async () => {
  const { store, unheard, claim, advance, see } = setUp({ earlyMs: 0.5 })
  unheard.remember(claim('1'))
  await advance(0)
  await see()
  await advance(2_000)
  expect(store.giveBackUnheard.total()).toBe(2)
  expect((await see())[0]).toBe('1')
})
