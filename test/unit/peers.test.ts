import { expect, test } from 'vitest'
import { createPeers } from '../../src/dispatch/peers.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { fakeCall } from '../support/fake-job-store.ts'

/** A gateway that listens; since long, unless told otherwise. */
async function setUp({ listeningMs = 60_000, earlyMs = 0 } = {}) {
  const clock = createFakeClock({ earlyMs })
  const store = { bury: fakeCall<[gateways: readonly number[]], number>() }
  const events: GatewayEvent[] = []
  const own: number[] = []
  const peers = createPeers({
    ...{ store, clock, identity: { owns: (id) => id < 3 } },
    emit: (event) => void events.push(event),
    onOwn: (id) => void own.push(id),
  })
  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  peers.listening()
  await advance(listeningMs)
  return { clock, store, events, own, peers, advance }
}

test('a gateway whose lock was seen free is buried 2 s later', async () => {
  const { peers, store, events, advance } = await setUp()
  peers.saw([7])
  await advance(1_000)
  peers.saw([7, 8])
  await advance(999)
  expect(store.bury.total()).toBe(0)
  await advance(1)
  expect(store.bury.next().args).toEqual([[7]])
  store.bury.next().resolve(4)
  await idle()
  expect(events).toEqual([
    { type: 'gateways buried', gateways: [7], jobs: 4 },
    { type: 'jobs returned', reason: 'gateway died', jobs: 4 },
  ])
  await advance(1_000)
  expect(store.bury.next().args).toEqual([[8]])
})

test('one that another gateway has buried meanwhile is forgotten', async () => {
  const { peers, store, clock, advance } = await setUp()
  peers.saw([7])
  peers.saw([])
  await advance(5_000)
  expect([store.bury.total(), clock.timers()]).toEqual([0, []])
})

test('one that has left something behind is buried again, 2 s after it is seen again', async () => {
  const { peers, store, advance } = await setUp()
  peers.saw([7])
  await advance(2_000)
  store.bury.next().resolve(0)
  await advance(1_000)
  peers.saw([7])
  await advance(1_999)
  expect(store.bury.total()).toBe(1)
  await advance(1)
  expect(store.bury.next().args).toEqual([[7]])
})

test('nobody is buried within 10 s of the own session’s beginning, nor while there is none', async () => {
  const { peers, store, advance } = await setUp({ listeningMs: 0 })
  peers.saw([7])
  await advance(5_000)
  peers.deaf()
  peers.saw([7])
  await advance(60_000)
  peers.listening()
  await advance(9_999)
  expect(store.bury.total()).toBe(0)
  await advance(1)
  expect(store.bury.next().args).toEqual([[7]])
})

test('a session that is lost takes with it what was seen before', async () => {
  const { peers, store, advance } = await setUp()
  peers.saw([7])
  await advance(1_999)
  peers.deaf()
  peers.listening()
  await advance(60_000)
  expect(store.bury.total()).toBe(0)
})

test('the own lock is for the listener to hear of, an own former id for nobody to bury', async () => {
  const { peers, store, own, advance } = await setUp()
  peers.saw([1, 2])
  expect(own).toEqual([1, 2])
  await advance(60_000)
  expect(store.bury.total()).toBe(0)
})

test('a burial that failed is told of, and comes again at the earliest a second later', async () => {
  const { peers, store, events, advance } = await setUp()
  peers.saw([7])
  await advance(2_000)
  const error = new Error('no database')
  store.bury.next().reject(error)
  await idle()
  expect(events).toEqual([{ type: 'upkeep failed', task: 'gateways', error }])
  peers.saw([7])
  await advance(2_000)
  expect(store.bury.next().args).toEqual([[7]])
})

test('stop waits for a burial, and begins none', async () => {
  const { peers, store, advance } = await setUp()
  peers.saw([7])
  await advance(2_000)
  peers.saw([8])
  let stopped = false
  const stopping = peers.stop().then(() => (stopped = true))
  await idle()
  expect(stopped).toBe(false)
  store.bury.next().resolve(0)
  await stopping
  await advance(60_000)
  expect(store.bury.total()).toBe(1)
})

test('a timer that fires early buries whom it was set for, and nobody in vain', async () => {
  const { peers, store, events, advance } = await setUp({ earlyMs: 0.5 })
  peers.saw([7])
  await advance(3_000)
  expect([store.bury.total(), store.bury.next().args]).toEqual([1, [[7]]])
  store.bury.next().resolve(1)
  await idle()
  expect(events[0]).toEqual({ type: 'gateways buried', gateways: [7], jobs: 1 })
})
