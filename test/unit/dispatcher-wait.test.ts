import { describe, expect, test } from 'vitest'
import { createDispatchWorld, findNothing, told } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { subscription } from '../support/fake-job-store.ts'

const both = subscription('both', ['a', 'b'])

describe('wait 0', () => {
  test('is one try', async () => {
    const world = createDispatchWorld()
    const { store, pull } = world
    const one = pull(subscription('s'), { waitMs: 0 })
    expect(told(one)).toEqual([])
    store.nextClaim().give()
    await idle()
    expect(told(one)).toEqual(['empty'])
    expect(store.claim.total()).toBe(1)
  })

  test('is one try on each topic', async () => {
    const world = createDispatchWorld()
    const { store, pull } = world
    const one = pull(both, { waitMs: 0 })
    store.nextClaim('a').give()
    await idle()
    expect(told(one)).toEqual([])
    store.nextClaim('b').give()
    await idle()
    expect(told(one)).toEqual(['empty'])
    expect(store.claim.total()).toBe(2)
    expect(store.claim.open).toHaveLength(0)
  })

  test('finds the job of its second topic', async () => {
    const { store, pull } = createDispatchWorld()
    const one = pull(both, { waitMs: 0 })
    store.nextClaim('a').give()
    await idle()
    store.nextClaim('b').give('1')
    await idle()
    expect(told(one)).toEqual(['1'])
  })

  test('that came while a claim was under way is served by the one that follows', async () => {
    const { store, pull } = createDispatchWorld()
    pull(subscription('s'))
    const one = pull(subscription('s'), { waitMs: 0 })
    store.nextClaim().give()
    await idle()
    expect(told(one)).toEqual([])
    store.nextClaim().give('1', '2')
    await idle()
    expect(told(one)).toEqual(['2'])
  })

  test('is answered also if a claim had no room for it', async () => {
    const world = createDispatchWorld()
    const { store, pull } = world
    const s = subscription('s')
    pull(s)
    pull(s, { max: 100 })
    pull(s, { max: 99 })
    const one = pull(s, { max: 50, waitMs: 0 })
    store.nextClaim().give()
    await idle()
    expect(store.nextClaim().slots).toEqual([{ subscription: s, jobs: 200 }])
    store.nextClaim().give('1')
    await idle()
    expect(told(one)).toEqual(['empty'])
    expect(store.claim.open).toHaveLength(0)
  })

  test('with no room in a full claim is tried by the next', async () => {
    const { store, pull } = createDispatchWorld()
    const s = subscription('s')
    pull(s)
    pull(s, { max: 100 })
    pull(s, { max: 100 })
    const one = pull(s, { waitMs: 0 })
    store.nextClaim().give('0')
    await idle()
    store.nextClaim().give(...Array.from({ length: 200 }, (_, n) => String(n)))
    await idle()
    expect(told(one)).toEqual([])
    store.nextClaim().give()
    await idle()
    expect(told(one)).toEqual(['empty'])
  })

  test('with no room in a claim that failed is told so: another at once would fail as well', async () => {
    const { store, pull } = createDispatchWorld()
    const s = subscription('s')
    pull(s)
    pull(s, { max: 100 })
    pull(s, { max: 100 })
    const one = pull(s, { waitMs: 0 })
    store.nextClaim().give('0')
    await idle()
    store.nextClaim().fail(new Error('no database'))
    await idle()
    expect(told(one)).toEqual(['error'])
    expect(store.claim.open).toHaveLength(0)
  })
})

describe('the deadline', () => {
  test('answers a parked pull, and a later claim is not for it', async () => {
    const world = createDispatchWorld()
    const { store, dispatcher, pull, clock } = world
    const one = pull(subscription('s'), { waitMs: 1_000 })
    await findNothing(world)
    clock.advance(999)
    expect(told(one)).toEqual([])
    clock.advance(1)
    expect(told(one)).toEqual(['empty'])
    expect(dispatcher.kick('a', 'notification')).toBe('idle')
    expect(store.claim.total()).toBe(1)
    expect(clock.timers()).toEqual([])
  })

  test.each([{ ids: ['1'] }, { ids: [] }])(
    'while a claim counts on the pull is left to that claim: $ids',
    async ({ ids }) => {
      const { store, pull, clock } = createDispatchWorld()
      const one = pull(subscription('s'), { waitMs: 1_000 })
      clock.advance(1_000)
      expect(told(one)).toEqual([])
      store.nextClaim().give(...ids)
      await idle()
      expect(told(one)).toEqual([ids[0] ?? 'empty'])
      expect(store.claim.total()).toBe(1)
    },
  )

  test('is left to the claim under way, not to the one that follows it', async () => {
    const { store, dispatcher, pull, clock } = createDispatchWorld()
    const one = pull(subscription('s'), { waitMs: 1_000 })
    clock.advance(1_000)
    dispatcher.kick('a', 'notification')
    store.nextClaim().give()
    await idle()
    expect(told(one)).toEqual(['empty'])
  })

  test('is left to the claim under way, not to other topics', async () => {
    const world = createDispatchWorld()
    const { store, dispatcher, pull, clock } = world
    const one = pull(both, { waitMs: 1_000 })
    await findNothing(world)
    dispatcher.kick('a', 'notification')
    dispatcher.kick('b', 'notification')
    clock.advance(1_000)
    expect(told(one)).toEqual([])
    store.nextClaim('a').give()
    await idle()
    expect(told(one)).toEqual(['empty'])
    await findNothing(world)
    expect(dispatcher.parked).toBe(0)
  })
})
