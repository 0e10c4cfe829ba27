import { describe, expect, test } from 'vitest'
import { createDispatchWorld, findNothing, told } from '../support/fake-dispatch.ts'
import type { DispatchWorld } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { job, subscription } from '../support/fake-job-store.ts'

const s = subscription('s')
const t = subscription('t')

test('a pull that waits for one try behind a full claim that fails is told so: no claim follows at once', async () => {
  const world = createDispatchWorld()
  const one = subscription('one', ['a'])
  for (let n = 0; n < 200; n += 1) world.pull(one)
  await findNothing(world)
  const last = world.pull(one, { waitMs: 0 })
  world.store.nextClaim().fail(new Error('no database'))
  await idle()
  expect(told(last)).toEqual(['error'])
  expect(world.store.claim.open).toEqual([])
  expect(world.dispatcher.parked).toBe(200)
})

describe('the job of a pull that is gone', () => {
  /** Three pulls in one claim. */
  async function reserved(world: DispatchWorld, subscriptions = [s, s, s]) {
    const opener = world.pull(s)
    const pulls = subscriptions.map((one) => world.pull(one))
    world.store.nextClaim().give('0')
    await idle()
    expect(told(opener)).toEqual(['0'])
    const [one, two, three] = pulls
    if (one === undefined || two === undefined || three === undefined) throw new Error('three pulls, please')
    return { one, two, three }
  }

  test('goes to the next one of its subscription, dead or left', async () => {
    const world = createDispatchWorld()
    const { one, two, three } = await reserved(world)
    one.live = false
    world.dispatcher.leave(two.waiter)
    world.store.nextClaim().give('1')
    await idle()
    expect([one, two, three].map(told)).toEqual([[], [], ['1']])
    expect(world.givenBack).toEqual([])
  })

  test('goes to one that came while the claim was under way', async () => {
    const world = createDispatchWorld()
    const gone = world.pull(s)
    const late = world.pull(s)
    gone.live = false
    world.store.nextClaim().give('1')
    await idle()
    expect([told(gone), told(late)]).toEqual([[], ['1']])
  })

  test('never goes to another subscription: it is given back', async () => {
    const world = createDispatchWorld()
    const { one, two, three } = await reserved(world, [s, t, t])
    one.live = false
    world.store.nextClaim().give('1', '2')
    await idle()
    expect([one, two, three].map(told)).toEqual([[], ['2'], []])
    expect(world.givenBack).toEqual(['1'])
  })

  test('goes to none but its successor, if it had a key, and to none that has a key, if it had not', async () => {
    const world = createDispatchWorld()
    const ghost = world.pull(s, { key: 'k' })
    const others = [world.pull(s), world.pull(s, { key: 'l' })]
    world.dispatcher.leave(ghost.waiter)
    world.store.nextClaim().give('1')
    await idle()
    expect(others.map(told)).toEqual([[], []])
    expect(world.givenBack).toEqual(['1'])
    const [plain, keyed] = others
    // Both are in one claim now.
    if (plain !== undefined) plain.live = false
    world.store.nextClaim().give('2', '3')
    await idle()
    expect(others.map(told)).toEqual([[], ['3']])
    expect(world.givenBack).toEqual(['1', '2'])
    expect(keyed?.answers).toHaveLength(1)
  })

  test('goes to its successor with the same key', async () => {
    const world = createDispatchWorld()
    const ghost = world.pull(s, { key: 'k', max: 2 })
    world.dispatcher.leave(ghost.waiter)
    const between = world.pull(s)
    const successor = world.pull(s, { key: 'k' })
    world.store.nextClaim().give('1', '2')
    await idle()
    expect([ghost, between, successor].map(told)).toEqual([[], [], ['1']])
    // No more than it wants.
    expect(world.givenBack).toEqual(['2'])
  })

  test('goes past one that another topic counts on', async () => {
    const world = createDispatchWorld()
    const both = subscription('both', ['a', 'b'])
    const first = world.pull(both)
    world.store.nextClaim('a').give()
    await idle()
    // The first is counted on by b now, the second by a.
    const second = world.pull(both)
    expect([first.waiter.reservedBy, second.waiter.reservedBy]).toEqual(['b', 'a'])
    second.live = false
    world.store.nextClaim('a').give('1')
    await idle()
    expect(world.givenBack).toEqual(['1'])
    world.store.nextClaim('b').give('2')
    await idle()
    expect(told(first)).toEqual(['2'])
  })

  test('is given back when nobody is left, the whole batch of it', async () => {
    const world = createDispatchWorld()
    const { waiter, answers } = world.pull(s, { max: 3 })
    world.dispatcher.leave(waiter)
    world.store.nextClaim().give('1', '2')
    await idle()
    expect(answers).toEqual([])
    expect(world.givenBack).toEqual(['1', '2'])
    expect(world.dispatcher.parked).toBe(0)
  })

  test('a dead pull is not claimed for', async () => {
    const world = createDispatchWorld()
    const { one, two, three } = await reserved(world)
    world.store.nextClaim().give()
    await idle()
    two.live = false
    world.dispatcher.kick('a', 'notification')
    expect(world.store.nextClaim().slots).toEqual([{ subscription: s, jobs: 2 }])
    world.store.nextClaim().give('1', '2')
    await idle()
    expect([one, two, three].map(told)).toEqual([['1'], [], ['2']])
  })
})

describe('a subscription that ended', () => {
  test('has its parked pulls answered, others stay', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    const pulls = [pull(s), pull(t), pull(s)]
    for (let n = 0; n < 2; n += 1) {
      store.nextClaim().give()
      await idle()
    }
    void dispatcher.endSubscriptions(['s', 'never heard of'])
    expect(pulls.map(told)).toEqual([['ended'], [], ['ended']])
    expect(dispatcher.parked).toBe(1)
  })

  test('is learnt from a claim, whose other slots are served', async () => {
    const { store, pull } = createDispatchWorld()
    pull(t)
    const pulls = [pull(s), pull(t), pull(s)]
    store.nextClaim().give('0')
    await idle()
    store.nextClaim().answer({ jobs: [{ slot: 1, job: job('1') }], endedSlots: [0, 2] })
    await idle()
    expect(pulls.map(told)).toEqual([['ended'], ['1'], ['ended']])
  })

  test('while a claim counts on its pull, is answered by that claim: with a job, or as ended', async () => {
    for (const jobs of [true, false]) {
      const { store, dispatcher, pull } = createDispatchWorld()
      const one = pull(s)
      void dispatcher.endSubscriptions(['s'])
      expect(told(one)).toEqual([])
      store
        .nextClaim()
        .answer(jobs ? { jobs: [{ slot: 0, job: job('1') }], endedSlots: [] } : { jobs: [], endedSlots: [0] })
      await idle()
      expect(told(one)).toEqual([jobs ? '1' : 'ended'])
    }
  })

  test('is answered after the claim that counts on its pull, if that one did not see the end', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    const one = pull(s)
    void dispatcher.endSubscriptions(['s'])
    store.nextClaim().give()
    await idle()
    expect(told(one)).toEqual(['ended'])
    expect(dispatcher.parked).toBe(0)
  })

  test('does not make a claim look short: whoever was left out of it is claimed for', async () => {
    const { store, pull } = createDispatchWorld()
    pull(t)
    pull(s, { max: 100 })
    pull(s, { max: 50 })
    pull(t, { max: 50 })
    const leftOut = pull(t)
    store.nextClaim().give('0')
    await idle()
    const jobs = Array.from({ length: 50 }, (_, n) => ({ slot: 1, job: job(`of t ${n}`) }))
    store.nextClaim().answer({ jobs, endedSlots: [0] })
    await idle()
    // The claim got all that the living asked for: there may be more.
    store.nextClaim().give('1')
    await idle()
    expect(told(leftOut)).toEqual(['1'])
  })
})

test('jobs that cannot be assigned go back, and whoever waited for the claim is told', async () => {
  const world = createDispatchWorld()
  const pull = world.pull(s)
  pull.waiter.isLive = () => {
    throw new Error('no socket')
  }
  world.store.nextClaim().give('1')
  await idle()
  expect(world.givenBack).toEqual(['1'])
  expect(world.dispatcher.parked).toBe(1)
  expect(world.events).toContainEqual(expect.objectContaining({ type: 'claim failed' }))
})
