import { describe, expect, test } from 'vitest'
import { createDeliveries } from '../../src/dispatch/deliveries.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { createFakeJobStore, job } from '../support/fake-job-store.ts'

function setUp() {
  const clock = createFakeClock()
  const store = createFakeJobStore()
  const events: GatewayEvent[] = []
  const reported: string[] = []
  const held = { reported: (jobs: readonly { readonly id: string }[]) => void reported.push(...ids(jobs)) }
  const deliveries = createDeliveries({ store, held, clock, emit: (event) => void events.push(event) })
  return { clock, store, events, reported, deliveries }
}

const ids = (jobs: readonly { readonly id: string }[]) => jobs.map(({ id }) => id)

describe.each(['confirm', 'giveBack', 'doubt'] as const)('%s', (verb) => {
  const outcome = { confirm: 'confirmed', giveBack: 'undelivered', doubt: 'in doubt' }[verb]

  test('reports a lone job at once, by id and lease only', async () => {
    const { store, deliveries, events } = setUp()
    deliveries[verb]([job('1')])
    expect(store[verb].next().args).toEqual([[{ id: '1', lease: 'lease of 1' }]])
    store[verb].next().resolve(1)
    await deliveries.settled()
    expect(events).toEqual([{ type: 'delivery', outcome, jobs: 1 }])
  })

  test('says what the database knows of only once it does', async () => {
    const { store, deliveries, clock, reported } = setUp()
    deliveries[verb]([job('1'), job('2')])
    store[verb].next().reject(new Error('no database'))
    await idle()
    clock.advance(500)
    await idle()
    expect(reported).toEqual([])
    store[verb].next().resolve(2)
    await deliveries.settled()
    expect(reported).toEqual(['1', '2'])
  })

  test('gathers what comes while a statement is under way into the next one', async () => {
    const { store, deliveries } = setUp()
    for (const id of ['1', '2', '3']) deliveries[verb]([job(id)])
    expect(store[verb].total()).toBe(1)
    store[verb].next().resolve(1)
    await idle()
    expect(ids(store[verb].next().args[0])).toEqual(['2', '3'])
    store[verb].next().resolve(2)
    await deliveries.settled()
    expect(store[verb].total()).toBe(2)
  })

  test('puts at most 500 into a statement', async () => {
    const { store, deliveries } = setUp()
    deliveries[verb](Array.from({ length: 1_200 }, (_, n) => job(String(n))))
    const sizes: number[] = []
    while (store[verb].open.length > 0) {
      const { args, resolve } = store[verb].next()
      sizes.push(args[0].length)
      resolve(args[0].length)
      await idle()
    }
    expect(sizes).toEqual([500, 500, 200])
  })

  test('tries again every half second, with what came meanwhile', async () => {
    const { store, deliveries, clock, events } = setUp()
    deliveries[verb]([job('1')])
    store[verb].next().reject(new Error('no database'))
    await idle()
    deliveries[verb]([job('2')])
    clock.advance(499)
    await idle()
    expect(store[verb].open).toHaveLength(0)
    clock.advance(1)
    await idle()
    expect(ids(store[verb].next().args[0])).toEqual(['1', '2'])
    store[verb].next().resolve(2)
    await deliveries.settled()
    expect(events).toEqual([{ type: 'delivery', outcome, jobs: 2 }])
  })

  test('gives up after 600 tries in a row, and says how much it dropped', async () => {
    const { store, deliveries, clock, events } = setUp()
    const error = new Error('no database')
    deliveries[verb]([job('1'), job('2')])
    const settled = deliveries.settled()
    for (let tries = 1; tries <= 600; tries += 1) {
      expect(store[verb].total()).toBe(tries)
      store[verb].next().reject(error)
      await idle()
      clock.advance(500)
      await idle()
    }
    await settled
    expect(store[verb].total()).toBe(600)
    expect(events).toEqual([{ type: 'delivery report failed', dropped: 2, error }])
    deliveries[verb]([job('3')])
    expect(ids(store[verb].next().args[0])).toEqual(['3'])
  })

  test('counts failures in a row only', async () => {
    const { store, deliveries, clock, events } = setUp()
    deliveries[verb](Array.from({ length: 501 }, (_, n) => job(String(n))))
    for (const last of [false, true]) {
      for (let tries = 1; tries < 600; tries += 1) {
        store[verb].next().reject(new Error('no database'))
        await idle()
        clock.advance(500)
        await idle()
      }
      store[verb].next().resolve(last ? 1 : 500)
      await idle()
    }
    expect(events.map(({ type }) => type)).toEqual(['delivery', 'delivery'])
  })

  test('holds at most 100,000 reports', async () => {
    const { store, deliveries, events } = setUp()
    deliveries[verb](Array.from({ length: 99_999 }, (_, n) => job(String(n))))
    deliveries[verb]([job('too', 'a'), job('many', 'a')])
    expect(events).toMatchObject([{ type: 'delivery report failed', dropped: 2 }])
    deliveries[verb]([job('just fits')])
    expect(events).toHaveLength(1)
    store[verb].next().resolve(500)
    await idle()
    deliveries[verb]([job('fits again')])
    expect(events.filter(({ type }) => type === 'delivery report failed')).toHaveLength(1)
  })
})

test('the three kinds of report do not wait for each other; settled waits for all', async () => {
  const { store, deliveries } = setUp()
  await deliveries.settled()
  deliveries.confirm([job('1')])
  deliveries.giveBack([job('2')])
  deliveries.doubt([job('3')])
  let settled = false
  void deliveries.settled().then(() => (settled = true))
  for (const verb of ['doubt', 'confirm', 'giveBack'] as const) {
    expect(settled).toBe(false)
    store[verb].next().resolve(1)
    await idle()
  }
  expect(settled).toBe(true)
})
