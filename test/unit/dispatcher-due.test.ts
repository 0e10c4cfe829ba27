import { describe, expect, test } from 'vitest'
import type { DueResult } from '../../src/domain/ports.ts'
import { idle } from '../support/fake-clock.ts'
import { createDispatchWorld, findNothing, told } from '../support/fake-dispatch.ts'
import type { DispatchWorld } from '../support/fake-dispatch.ts'
import { fill, nothingDue, subscription } from '../support/fake-job-store.ts'

const due: DueResult = { ...nothingDue, topics: ['a'], promoted: 1 }

/** Pulls are parked on the quiet topic `a`: no claim is under way. */
function quietWorld(): DispatchWorld {
  const world = createDispatchWorld()
  world.covered.add('a')
  return world
}

/** Due work for `a`; undefined if it has to go without a claim. */
function claimDue(world: DispatchWorld) {
  return world.dispatcher.claimDue('a', 500, 'since')
}

/** Answers the statement under way with these jobs. */
async function answer({ store }: DispatchWorld, ids: string[], result: DueResult = due): Promise<void> {
  const { args, resolve } = store.claimDue.next()
  const [, , topic, slots] = args
  resolve({ jobs: fill(topic.id, slots, ids), endedSlots: [], due: result })
  await idle()
}

describe('due work that claims', () => {
  test('is one statement for the parked pulls, and hands its jobs out', async () => {
    const world = quietWorld()
    const { store, events, clock } = world
    const pulls = [world.pull(subscription('s')), world.pull(subscription('s'))]
    const claimed = claimDue(world)
    expect(store.claimDue.next().args).toMatchObject([500, 'since', { id: 'a' }, [{ jobs: 2 }], {}])
    clock.advance(7)
    await answer(world, ['1', '2'], { ...due, waitedMs: 4 })
    expect(pulls.map(told)).toEqual([['1'], ['2']])
    expect(await claimed).toMatchObject({ due: { promoted: 1 } })
    // What it waited for its instant is no time of the claim, nor of the wake.
    expect(events).toEqual([
      { type: 'wake', cause: 'due' },
      { type: 'claim', cause: 'due', topic: 'jobs_a', jobs: 2, seconds: 0.003 },
      { type: 'job claimed', topic: 'jobs_a', readySeconds: 0.01 },
      { type: 'job claimed', topic: 'jobs_a', readySeconds: 0.01 },
    ])
    expect(pulls[0]?.answers[0]).toMatchObject({ wokenAt: 1_004 })
    expect(store.claim.total()).toBe(0)
  })

  test('hands out before whoever asked for it goes on', async () => {
    const world = quietWorld()
    const pull = world.pull(subscription('s'))
    const seen = claimDue(world)?.then(() => told(pull))
    await answer(world, ['1'])
    expect(await seen).toEqual(['1'])
  })

  test('is followed by a claim when it found all that was wanted', async () => {
    const world = quietWorld()
    world.pull(subscription('s'))
    void claimDue(world)
    const late = world.pull(subscription('s'))
    await answer(world, ['1'])
    world.store.nextClaim().give('2')
    await idle()
    expect(told(late)).toEqual(['2'])
  })

  test('leaves pulls parked when nothing was due after all, and tells arming', async () => {
    const world = quietWorld()
    const pull = world.pull(subscription('s'))
    void claimDue(world)
    await answer(world, [], nothingDue)
    expect(told(pull)).toEqual([])
    expect(world.claims).toMatchObject([['a', { jobs: 0, result: 'short', waiting: true }]])
    expect(claimDue(world)).toBeDefined()
  })
})

describe('is not asked', () => {
  test('while nobody waits', () => {
    const world = quietWorld()
    expect(claimDue(world)).toBeUndefined()
  })
  test('when those who wait are gone', () => {
    const world = quietWorld()
    world.pull(subscription('s')).live = false
    expect(claimDue(world)).toBeUndefined()
    expect(world.events).toEqual([])
  })
  test('where a job may be ready already: it would wait for the instant of another', async () => {
    const world = createDispatchWorld()
    world.pull(subscription('s'))
    await findNothing(world)
    expect(claimDue(world)).toBeUndefined()
    expect(world.store.claimDue.total()).toBe(0)
  })
  test('while a claim of the topic is in flight, another such included', () => {
    const world = quietWorld()
    world.pull(subscription('s'))
    world.dispatcher.kick('a', 'notification')
    expect(claimDue(world)).toBeUndefined()
    const other = quietWorld()
    other.pull(subscription('s'))
    expect(claimDue(other)).toBeDefined()
    expect(claimDue(other)).toBeUndefined()
  })
  test('once the drain has begun', async () => {
    const world = quietWorld()
    world.pull(subscription('s'))
    await world.dispatcher.stopClaiming()
    expect(claimDue(world)).toBeUndefined()
  })
})

describe('while it is under way', () => {
  test('a wake is remembered: one more claim follows', async () => {
    const world = quietWorld()
    const pull = world.pull(subscription('s'))
    void claimDue(world)
    world.dispatcher.kick('a', 'notification')
    expect(world.store.claim.total()).toBe(0)
    await answer(world, [], nothingDue)
    world.store.nextClaim().give('1')
    await idle()
    expect(told(pull)).toEqual(['1'])
    expect(world.events).toContainEqual(expect.objectContaining({ type: 'claim', cause: 'notification' }))
  })
  test('a pull that wants one try is answered by a claim of its own', async () => {
    const world = quietWorld()
    world.pull(subscription('s'))
    void claimDue(world)
    const once = world.pull(subscription('s'), { waitMs: 0 })
    await answer(world, [], nothingDue)
    expect(told(once)).toEqual([])
    await findNothing(world)
    expect(told(once)).toEqual(['empty'])
  })
  test('the drain waits for it, and its jobs are handed out', async () => {
    const world = quietWorld()
    const pull = world.pull(subscription('s'))
    void claimDue(world)
    let quiet = false
    void world.dispatcher.stopClaiming().then(() => (quiet = true))
    await idle()
    expect(quiet).toBe(false)
    await answer(world, ['1'])
    expect([quiet, told(pull), world.store.claim.total()]).toEqual([true, ['1'], 0])
  })
  test('pulls that die leave their jobs to others of the subscription, else they go back', async () => {
    const world = quietWorld()
    const [first, second] = [world.pull(subscription('s')), world.pull(subscription('s'))]
    void claimDue(world)
    first.live = false
    second.live = false
    const next = world.pull(subscription('s'))
    await answer(world, ['1', '2'])
    expect(told(next)).toEqual(['1'])
    expect(world.givenBack).toEqual(['2'])
  })
  test('a wait that ends is over when the answer is there', async () => {
    const world = quietWorld()
    const pull = world.pull(subscription('s'), { waitMs: 50 })
    void claimDue(world)
    world.clock.advance(100)
    expect(told(pull)).toEqual([])
    await answer(world, [], nothingDue)
    expect(told(pull)).toEqual(['empty'])
  })
  test('a subscription that ends gets what was claimed for it, or the end', async () => {
    const world = quietWorld()
    const [served, ended] = [world.pull(subscription('s')), world.pull(subscription('s'))]
    void claimDue(world)
    void world.dispatcher.endSubscriptions(['s'])
    await answer(world, ['1'])
    expect([told(served), told(ended)]).toEqual([['1'], ['ended']])
  })
})

describe('that fails', () => {
  const error = new Error('no database')

  test('leaves the parked parked, tells who asked, and lets the next claim begin', async () => {
    const world = quietWorld()
    const pull = world.pull(subscription('s'))
    const claimed = claimDue(world)
    world.store.claimDue.next().reject(error)
    await expect(claimed).rejects.toBe(error)
    await idle()
    expect(told(pull)).toEqual([])
    expect(world.events).toContainEqual({ type: 'claim failed', topic: 'jobs_a', seconds: 0, error })
    world.dispatcher.kick('a', 'backstop')
    world.store.nextClaim().give('1')
    await idle()
    expect(told(pull)).toEqual(['1'])
  })
  test('also those for whom no claim has come back yet: of a quiet topic their answer was known', async () => {
    const world = createDispatchWorld()
    const crowd = Array.from({ length: 3 }, () => world.pull(subscription('s'), { max: 100 }))
    world.covered.add('a')
    // Room for two.
    await findNothing(world)
    expect(crowd.map(({ waiter }) => waiter.tried)).toContain(false)
    for (const { waiter } of crowd.filter(({ waiter }) => waiter.tried)) world.dispatcher.leave(waiter)
    void claimDue(world)?.catch(() => undefined)
    world.store.claimDue.next().reject(error)
    await idle()
    expect(crowd.map(told)).toEqual([[], [], []])
  })
})
