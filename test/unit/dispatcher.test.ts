import { describe, expect, test } from 'vitest'
import { claimJobsMax } from '../../src/dispatch/dispatcher.ts'
import { createDispatchWorld, told } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { subscription } from '../support/fake-job-store.ts'

const s = subscription('s')
const t = subscription('t')

describe('claims', () => {
  test('1,000 parked pulls and one kick are one claim at a time, for as many jobs as are wanted', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    const first = pull(s)
    const pulls = Array.from({ length: 1_000 }, () => pull(s))
    expect(store.claim.total()).toBe(1)
    store.nextClaim().give()
    await idle()
    expect(store.claim.total()).toBe(2)
    expect(store.nextClaim().slots).toEqual([{ subscription: s, jobs: claimJobsMax }])
    store.nextClaim().give()
    await idle()
    expect(store.claim.open).toHaveLength(0)

    dispatcher.kick('a', 'notification')
    expect(store.claim.total()).toBe(3)
    store.nextClaim().give('1')
    await idle()
    expect(store.claim.total()).toBe(3)
    expect(told(first)).toEqual(['1'])
    expect(pulls.flatMap(told)).toEqual([])
    expect(dispatcher.parked).toBe(1_000)
  })

  test('a parked pull holds nothing: no statement is under way while it waits', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    for (let n = 0; n < 1_000; n += 1) pull(s)
    while (store.claim.open.length > 0) {
      store.nextClaim().give()
      await idle()
    }
    expect(dispatcher.parked).toBe(1_000)
    expect(store.claim.total()).toBe(2)
  })

  test('kicks during a claim are one more claim; the first of them is its cause', async () => {
    const { store, dispatcher, pull, events } = createDispatchWorld()
    pull(s)
    for (const cause of ['notification', 'due', 'resync'] as const) {
      expect(dispatcher.kick('a', cause)).toBe('woke')
    }
    expect(store.claim.total()).toBe(1)
    store.nextClaim().give()
    await idle()
    expect(store.claim.total()).toBe(2)
    store.nextClaim().give()
    await idle()
    expect(store.claim.total()).toBe(2)
    const causes = events.flatMap((event) => (event.type === 'claim' ? [event.cause] : []))
    expect(causes).toEqual(['arrival', 'notification'])
  })

  test('at most one is in flight per topic, and topics do not wait for each other', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    const topics = ['a', 'b', 'c']
    for (const topic of topics) for (let n = 0; n < 3; n += 1) pull(subscription(`of ${topic}`, [topic]))
    for (let n = 0; n < 5; n += 1) {
      dispatcher.kickAll('resync')
      expect(store.claim.open.map(({ args: [topic] }) => topic.id).toSorted()).toEqual(topics)
      store.nextClaim('b').give()
      await idle()
    }
  })

  test('one that finds all it asked for is followed by another, one that comes back short is not', async () => {
    const { store, dispatcher, pull, events } = createDispatchWorld()
    pull(s, { max: 2 })
    store.nextClaim().give('1', '2')
    await idle()
    expect(store.claim.open).toHaveLength(0)
    const [, other] = [pull(s), pull(s)]
    store.nextClaim().give('3')
    await idle()
    store.nextClaim().give()
    await idle()
    expect(store.claim.open).toHaveLength(0)
    expect(told(other)).toEqual([])
    pull(t, { max: 100 })
    pull(t, { max: 100 })
    store.nextClaim().give()
    await idle()
    store.nextClaim().give(...Array.from({ length: 101 }, (_, n) => `job ${n}`))
    await idle()
    // The last pull did not fit beside the others; it is served by the backlog's claim.
    expect(store.nextClaim().slots).toEqual([{ subscription: t, jobs: 100 }])
    expect(events.filter((event) => event.type === 'claim').map(({ cause }) => cause)).not.toContain(
      'backlog',
    )
    store.nextClaim().give('last')
    await idle()
    expect(events.findLast((event) => event.type === 'claim')?.cause).toBe('backlog')
    expect(dispatcher.kick('a', 'due')).toBe('idle')
  })

  test('a kick for a topic without pulls is idle', () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    const { waiter } = pull(s)
    expect(dispatcher.kick('b', 'notification')).toBe('idle')
    dispatcher.leave(waiter)
    expect(dispatcher.kick('a', 'notification')).toBe('idle')
    expect(store.claim.total()).toBe(1)
  })

  test('one that fails answers those it was for, and nobody else', async () => {
    const { store, pull, events } = createDispatchWorld()
    const reserved = pull(s)
    const later = pull(s)
    const now = pull(s, { waitMs: 0 })
    const error = new Error('no database')
    store.nextClaim().fail(error)
    await idle()
    expect(reserved.answers).toEqual([{ kind: 'error', error }])
    expect([told(later), told(now)]).toEqual([[], []])
    expect(events).toContainEqual({ type: 'claim failed', topic: 'jobs_a', seconds: 0, error })
    store.nextClaim().give('1', '2')
    await idle()
    expect([told(later), told(now)]).toEqual([['1'], ['2']])
  })
})

describe('hand-out', () => {
  test('is first in, first out', async () => {
    const { store, pull } = createDispatchWorld()
    const pulls = [pull(s), pull(s), pull(s), pull(s)]
    store.nextClaim().give()
    await idle()
    store.nextClaim().give('1', '2')
    await idle()
    expect(pulls.map(told)).toEqual([['1'], ['2'], [], []])
  })

  test('carries the instant of the wake that the claim was for', async () => {
    const { store, dispatcher, pull, clock } = createDispatchWorld()
    const one = pull(s)
    store.nextClaim().give()
    await idle()
    clock.advance(70)
    const wokenAt = clock.now()
    dispatcher.kick('a', 'notification')
    clock.advance(5)
    store.nextClaim().give('1')
    await idle()
    expect(one.answers).toMatchObject([{ kind: 'jobs', wokenAt }])
  })
})

describe('while nothing may be claimed', () => {
  test('pulls that wait stay parked, those that come are parked, and a kick of all serves both', async () => {
    const { store, dispatcher, pull, identity } = createDispatchWorld()
    const before = pull(s)
    store.nextClaim().give()
    await idle()
    identity.mayClaim = false
    const [after, once] = [pull(s), pull(s, { waitMs: 0 })]
    expect(dispatcher.kick('a', 'notification')).toBe('idle')
    expect([store.claim.total(), dispatcher.parked]).toEqual([1, 3])
    identity.mayClaim = true
    dispatcher.kickAll('resync')
    store.nextClaim().give('1', '2')
    await idle()
    expect([before, after, once].map(told)).toEqual([['1'], ['2'], ['empty']])
  })
  test('the claim that was under way is followed by none', async () => {
    const { store, dispatcher, pull, identity } = createDispatchWorld()
    pull(s)
    dispatcher.kick('a', 'notification')
    identity.mayClaim = false
    store.nextClaim().give()
    await idle()
    expect([store.claim.total(), dispatcher.parked]).toEqual([1, 1])
  })
})
