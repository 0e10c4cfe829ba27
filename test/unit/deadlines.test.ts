import { expect, test } from 'vitest'
import { clearDeadline, createDeadlines } from '../../src/dispatch/deadlines.ts'
import type { Waiter } from '../../src/dispatch/waiter.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { probe } from '../support/fake-dispatch.ts'
import { subscription } from '../support/fake-job-store.ts'

function setUp() {
  const clock = createFakeClock()
  const ended: Waiter[] = []
  const deadlines = createDeadlines(clock, (waiter) => void ended.push(waiter))
  const park = (ms: number) => {
    const { waiter } = probe(subscription('s'))
    deadlines.set(waiter, ms)
    return waiter
  }
  return { clock, ended, park }
}

test('waits that end within the same 25 ms share a timer, and none ends early', () => {
  const { clock, ended, park } = setUp()
  const [first, second, later] = [park(101), park(125), park(126)]
  expect(clock.timers()).toEqual([125, 150])
  clock.advance(124)
  expect(ended).toEqual([])
  clock.advance(1)
  expect(ended).toEqual([first, second])
  clock.advance(25)
  expect(ended).toEqual([first, second, later])
  expect(clock.timers()).toEqual([])
})

test('one that has left is not ended, and the last to leave takes the timer with it', () => {
  const { clock, ended, park } = setUp()
  const [gone, stays] = [park(120), park(121)]
  clearDeadline(gone)
  clearDeadline(gone)
  expect(clock.timers()).toEqual([125])
  clearDeadline(stays)
  expect(clock.timers()).toEqual([])
  clock.advance(1_000)
  expect(ended).toEqual([])
})
