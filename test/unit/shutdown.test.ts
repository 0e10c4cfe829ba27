import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { StopSteps } from '../../src/shutdown.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function setUp() {
  const events: GatewayEvent[] = []
  const ran: string[] = []
  const steps = new StopSteps((event) => void events.push(event))
  const push = (name: string, stop: () => Promise<void> | void = () => undefined) =>
    steps.push(name, () => {
      ran.push(name)
      return stop()
    })
  return { steps, push, ran, events }
}

const forEver = () => new Promise<void>(() => undefined)

test('the last start is the first to stop, one after the other', async () => {
  const { steps, push, ran } = setUp()
  let release = () => {}
  push('pool')
  push('port')
  push('claims', () => new Promise((resolve) => (release = resolve)))
  const stopped = steps.stop(10_000)
  await vi.advanceTimersByTimeAsync(100)
  expect(ran).toEqual(['claims'])
  release()
  expect(await stopped).toBe(true)
  expect(ran).toEqual(['claims', 'port', 'pool'])
  expect(vi.getTimerCount()).toBe(0)
})

test('a step that fails is named and stops no other', async () => {
  const { steps, push, ran, events } = setUp()
  const error = new Error('it broke')
  push('pool')
  push('port', () => Promise.reject(error))
  push('listener', () => {
    // eslint-disable-next-line @typescript-eslint/only-throw-error -- a step's library may throw anything
    throw 'text'
  })
  push('claims')
  expect(await steps.stop(10_000)).toBe(false)
  expect(ran).toEqual(['claims', 'listener', 'port', 'pool'])
  expect(events).toEqual([
    { type: 'stop step failed', step: 'listener', error: new Error('text') },
    { type: 'stop step failed', step: 'port', error },
  ])
})

test('a step that hangs is named at the deadline, and each after it still has a second', async () => {
  const { steps, push, ran, events } = setUp()
  push('pool')
  push('port', forEver)
  push('claims', forEver)
  const stopped = steps.stop(5_000)
  await vi.advanceTimersByTimeAsync(4_999)
  expect(ran).toEqual(['claims'])
  await vi.advanceTimersByTimeAsync(1)
  expect(ran).toEqual(['claims', 'port'])
  await vi.advanceTimersByTimeAsync(1_000)
  expect(await stopped).toBe(false)
  expect(ran).toEqual(['claims', 'port', 'pool'])
  expect(events.map((event) => event.type === 'stop step failed' && event.step)).toEqual(['claims', 'port'])
  expect(vi.getTimerCount()).toBe(0)
})

test('one deadline counts for all', async () => {
  const { steps, push, ran } = setUp()
  const slow = () => new Promise<void>((resolve) => setTimeout(resolve, 3_000))
  push('pool')
  push('port', slow)
  push('claims', slow)
  const stopped = steps.stop(5_000)
  await vi.advanceTimersByTimeAsync(5_000)
  expect(ran).toEqual(['claims', 'port', 'pool'])
  expect(await stopped).toBe(false)
})

test('a step that fails after it was left behind harms nobody', async () => {
  const { steps, push } = setUp()
  push('late', () => new Promise((_, reject) => setTimeout(() => reject(new Error('late')), 5_000)))
  const stopped = steps.stop(1_000)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(await stopped).toBe(false)
})

test('a second call joins the first', async () => {
  const { steps, push, ran } = setUp()
  push('claims', () => new Promise((resolve) => setTimeout(resolve, 500)))
  const both = Promise.all([steps.stop(1_000), steps.stop(1)])
  await vi.advanceTimersByTimeAsync(500)
  expect(await both).toEqual([true, true])
  expect(await steps.stop(1)).toBe(true)
  expect(ran).toEqual(['claims'])
})

test('with nothing started there is nothing to stop', async () => {
  expect(await setUp().steps.stop(1_000)).toBe(true)
})
