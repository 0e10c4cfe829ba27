import { describe, expect, test } from 'vitest'
import { createDispatchWorld, findNothing, told } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { subscription } from '../support/fake-job-store.ts'

const both = subscription('both', ['a', 'b'])
const onlyB = subscription('only b', ['b'])

describe('a pull on several topics', () => {
  test('is counted on by one claim at a time', async () => {
    const { store, pull } = createDispatchWorld()
    const one = pull(both)
    expect(store.claim.open.map(({ args: [topic] }) => topic.id)).toEqual(['a'])
    store.nextClaim('a').give('1')
    await idle()
    expect(told(one)).toEqual(['1'])
    expect(store.claim.total()).toBe(1)
  })

  test('a topic that was passed over is claimed afterwards: no wake is lost', async () => {
    const world = createDispatchWorld()
    const { store, dispatcher, pull } = world
    const one = pull(both)
    await findNothing(world)
    dispatcher.kick('a', 'notification')
    dispatcher.kick('b', 'notification')
    await idle()
    expect(store.claim.open).toHaveLength(1)
    store.nextClaim('a').give()
    await idle()
    store.nextClaim('b').give('1')
    await idle()
    expect(told(one)).toEqual(['1'])
    expect(store.claim.open).toHaveLength(0)
  })

  test('of three topics misses none: a claim that catches up leaves the debts of the others', async () => {
    const { store, pull } = createDispatchWorld()
    const one = pull(subscription('three', ['a', 'b', 'c']))
    for (const topic of ['a', 'b']) {
      store.nextClaim(topic).give()
      await idle()
    }
    store.nextClaim('c').give('1')
    await idle()
    expect(told(one)).toEqual(['1'])
  })

  test('is passed over by a claim for others, who are served', async () => {
    const world = createDispatchWorld()
    const { store, dispatcher, pull } = world
    const one = pull(both)
    await findNothing(world)
    dispatcher.kick('a', 'notification')
    const other = pull(onlyB)
    expect(store.nextClaim('b').slots).toEqual([{ subscription: onlyB, jobs: 1 }])
    store.nextClaim('b').give('1')
    await idle()
    expect(told(other)).toEqual(['1'])
    store.nextClaim('a').give()
    await idle()
    store.nextClaim('b').give('2')
    await idle()
    expect(told(one)).toEqual(['2'])
  })

  test('misses no hint that comes on top of a claim for those who were passed over', async () => {
    const world = createDispatchWorld()
    const { store, dispatcher, pull } = world
    const fleet = [pull(both), pull(both)]
    await findNothing(world)
    dispatcher.kick('a', 'notification')
    const other = pull(onlyB)
    // The claim of b passed the fleet over; a has nothing, so b is to be asked again for them.
    store.nextClaim('a').give()
    await idle()
    dispatcher.kick('a', 'notification')
    // Only now comes a job on b, while both claims are under way.
    dispatcher.kick('b', 'notification')
    dispatcher.leave(other.waiter)
    store.nextClaim('b').give()
    await idle()
    store.nextClaim('a').give()
    await idle()
    store.nextClaim('b').give('1')
    await idle()
    expect(fleet.flatMap(told)).toEqual(['1'])
  })

  test('of a fleet without jobs come to rest: topics do not wake each other for ever', async () => {
    const world = createDispatchWorld()
    for (let n = 0; n < 10; n += 1) world.pull(both)
    await findNothing(world)
    world.dispatcher.kickAll('resync')
    await findNothing(world)
    expect(world.dispatcher.parked).toBe(10)
  })

  test('leaves every topic when it is answered', async () => {
    const world = createDispatchWorld()
    const { store, dispatcher, pull } = world
    pull(both)
    store.nextClaim('a').give('1')
    await idle()
    expect([
      dispatcher.parked,
      dispatcher.parkedByTopic().get('jobs_a') ?? 0,
      dispatcher.parkedByTopic().get('jobs_b') ?? 0,
    ]).toEqual([0, 0, 0])
    expect(dispatcher.topicsWithWaiters()).toEqual([])
    expect(dispatcher.kick('b', 'notification')).toBe('idle')
  })
})
