import { describe, expect, test } from 'vitest'
import { claimJobsMax } from '../../src/dispatch/dispatcher.ts'
import { createDispatchWorld, told } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { subscription } from '../support/fake-job-store.ts'

const s = subscription('s')
const t = subscription('t')

describe('slots', () => {
  test('neighbours of one subscription share a slot', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    pull(s)
    for (const [sub, max] of [
      [s, 1],
      [s, 3],
      [t, 1],
      [t, 1],
      [s, 2],
    ] as const)
      pull(sub, { max })
    store.nextClaim().give()
    await idle()
    expect(store.nextClaim().slots.map(({ subscription: { id }, jobs }) => [id, jobs])).toEqual([
      ['s', 5],
      ['t', 2],
      ['s', 2],
    ])
    expect(dispatcher.parkedFor('s')).toBe(4)
    expect(dispatcher.parkedFor('t')).toBe(2)
    expect(dispatcher.parkedByTopic().get('jobs_a')).toBe(6)
    expect(dispatcher.topicsWithWaiters()).toEqual(['a'])
  })

  test('a pull with a key has one of its own', async () => {
    const { store, pull } = createDispatchWorld()
    pull(s)
    for (const key of [undefined, 'k', undefined, 'l', undefined]) pull(s, { key })
    store.nextClaim().give()
    await idle()
    expect(store.nextClaim().slots.map(({ key, jobs }) => [key, jobs])).toEqual([
      [undefined, 2],
      ['k', 1],
      [undefined, 1],
      ['l', 1],
      [undefined, 1],
    ])
  })

  test('a batch is filled in order and never split over two claims', async () => {
    const { store, pull } = createDispatchWorld()
    const opener = pull(s)
    const [big, bigger, small] = [pull(s, { max: 99 }), pull(s, { max: 101 }), pull(s, { max: 1 })]
    store.nextClaim().give('0')
    await idle()
    // 99 + 101 is all a claim takes: the small one does not fit and waits its turn.
    expect(store.nextClaim().slots).toEqual([{ subscription: s, jobs: 200 }])
    store.nextClaim().give(...Array.from({ length: 100 }, (_, n) => String(n)))
    await idle()
    const counts = [opener, big, bigger, small].map(({ answers: [answer] }) =>
      answer?.kind === 'jobs' ? answer.jobs.length : 0,
    )
    expect(counts).toEqual([1, 99, 1, 0])
  })

  test('one that does not fit is not overtaken by a smaller one behind it', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    for (const max of [1, 150, 100, 1]) pull(s, { max })
    store.nextClaim().give()
    await idle()
    // Of 1, 150, 100, 1 the third is too large beside the first two, and the fourth stays behind it.
    expect(store.nextClaim().slots).toEqual([{ subscription: s, jobs: 151 }])
    expect(dispatcher.parked).toBe(4)
  })

  test('a pull for more than a claim takes is served alone', async () => {
    const { store, pull } = createDispatchWorld()
    const huge = pull(s, { max: claimJobsMax + 1 })
    expect(store.nextClaim().slots).toEqual([{ subscription: s, jobs: claimJobsMax + 1 }])
    store.nextClaim().give('1')
    await idle()
    expect(told(huge)).toEqual(['1'])
  })
})
