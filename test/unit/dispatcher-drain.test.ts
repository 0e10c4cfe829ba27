import { describe, expect, test } from 'vitest'
import { createDispatchWorld, told } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { subscription } from '../support/fake-job-store.ts'

const s = subscription('s')

describe('drain', () => {
  test('no claim begins after stopClaiming, and those in flight are handed out', async () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    const [one, two] = [pull(s), pull(s)]
    pull(subscription('b', ['b']))
    dispatcher.kick('a', 'notification')
    let quiet = false
    const stopped = dispatcher.stopClaiming().then(() => (quiet = true))
    dispatcher.kickAll('backstop')
    expect(dispatcher.kick('b', 'notification')).toBe('idle')
    store.nextClaim('a').give('1')
    await idle()
    expect(told(one)).toEqual(['1'])
    expect(quiet).toBe(false)
    store.nextClaim('b').give()
    await stopped
    expect(store.claim.total()).toBe(2)
    expect(told(two)).toEqual([])
  })

  test('a pull that comes afterwards is answered at once', () => {
    const { store, dispatcher, pull } = createDispatchWorld()
    void dispatcher.stopClaiming()
    expect(told(pull(s))).toEqual(['draining'])
    expect(dispatcher.parked).toBe(0)
    expect(store.claim.total()).toBe(0)
  })

  test('answerAll spreads its answers, and leaves out who has left', async () => {
    const { store, dispatcher, pull, clock } = createDispatchWorld()
    const pulls = Array.from({ length: 100 }, () => pull(s))
    while (store.claim.open.length > 0) {
      store.nextClaim().give()
      await idle()
    }
    await dispatcher.stopClaiming()
    const done = dispatcher.answerAll(1_000)
    const answered = () => pulls.filter(({ answers }) => answers.length > 0).length
    clock.advance(250)
    expect(answered()).toBeGreaterThan(5)
    expect(answered()).toBeLessThan(50)
    const left = pulls.filter(({ answers }) => answers.length === 0).slice(0, 10)
    for (const { waiter } of left) expect(dispatcher.leave(waiter)).toBe(true)
    clock.advance(750)
    await done
    expect(answered()).toBe(90)
    expect(new Set(pulls.flatMap(told))).toEqual(new Set(['draining']))
    expect(dispatcher.parked).toBe(0)
  })
})
