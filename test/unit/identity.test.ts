import { describe, expect, test } from 'vitest'
import { createIdentity } from '../../src/dispatch/identity.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { GatewayStore, Held } from '../../src/domain/ports.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { fakeCall } from '../support/fake-job-store.ts'

function setUp() {
  const clock = createFakeClock()
  const store = { retire: fakeCall<Parameters<GatewayStore['retire']>, number>() }
  const events: GatewayEvent[] = []
  const held: Held[] = []
  let without = 0
  const identity = createIdentity({
    ...{ store, clock, held: { all: () => [...held] } },
    emit: (event) => void events.push(event),
    onWithout: () => (without += 1),
  })
  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  async function retired(jobs = 0) {
    store.retire.next().resolve(jobs)
    await idle()
  }
  return { clock, store, events, held, identity, advance, retired, without: () => without }
}

describe('the id to claim under', () => {
  test('is that of the session; while it is lost there is none, and the next session has another', () => {
    const { identity } = setUp()
    expect(identity.current).toBeUndefined()
    identity.taken(7)
    expect([identity.current, identity.owns(7)]).toEqual([7, true])
    identity.lost()
    expect([identity.current, identity.owns(7)]).toEqual([undefined, true])
    identity.taken(8)
    expect([identity.current, identity.owns(8), identity.owns(9)]).toEqual([8, true, false])
  })

  test('is none after 2 s without a session, until there is one', async () => {
    const { identity, advance, without } = setUp()
    identity.taken(7)
    identity.lost()
    await advance(1_999)
    expect([identity.current, without()]).toEqual([undefined, 0])
    await advance(1)
    expect([identity.current, without()]).toEqual([0, 1])
    identity.taken(8)
    expect(identity.current).toBe(8)
    identity.lost()
    identity.taken(9)
    await advance(2_000)
    expect([identity.current, without()]).toEqual([9, 1])
  })

  test('is none after 2 s also when attempts at a new session go on failing, and stays so', async () => {
    const { identity, advance, without } = setUp()
    // As at a start behind a transaction pooler, where there never is one.
    for (const ms of [500, 1_000, 499]) {
      identity.lost()
      await advance(ms)
    }
    expect([identity.current, without()]).toEqual([undefined, 0])
    await advance(1)
    identity.lost()
    await advance(5_000)
    expect([identity.current, without()]).toEqual([0, 1])
  })
})

describe('under the next id', () => {
  test('what is being handed out goes over, the rest of the former id is given back', async () => {
    const { identity, store, held, events, retired } = setUp()
    identity.taken(7)
    expect(store.retire.total()).toBe(0)
    identity.lost()
    held.push({ id: '1', lease: 'a' })
    identity.taken(8)
    expect(store.retire.next().args).toEqual([[7], 8, [{ id: '1', lease: 'a' }]])
    await retired(3)
    expect(events.at(-1)).toEqual({ type: 'jobs returned', reason: 'session lost', jobs: 3 })
    expect(identity.owns(7)).toBe(false)
  })

  test('also what was left when giving back failed, or when that session was lost as well', async () => {
    const { identity, store, held, events, advance, retired } = setUp()
    identity.taken(7)
    identity.lost()
    identity.taken(8)
    const error = new Error('no database')
    store.retire.next().reject(error)
    await idle()
    expect(events.at(-1)).toEqual({ type: 'upkeep failed', task: 'gateways', error })
    identity.lost()
    await advance(1_000)
    expect(store.retire.total()).toBe(1)
    held.push({ id: '2', lease: 'b' })
    identity.taken(9)
    expect(store.retire.next().args).toEqual([[7, 8], 9, [{ id: '2', lease: 'b' }]])
    identity.lost()
    identity.taken(10)
    await retired()
    expect(store.retire.next().args).toEqual([[9], 10, [{ id: '2', lease: 'b' }]])
  })

  test('giving back that failed is tried again after a second', async () => {
    const { identity, store, advance } = setUp()
    identity.taken(7)
    identity.lost()
    identity.taken(8)
    store.retire.next().reject(new Error('no database'))
    await idle()
    await advance(999)
    expect(store.retire.total()).toBe(1)
    await advance(1)
    expect(store.retire.next().args).toEqual([[7], 8, []])
  })
})

describe('stop', () => {
  test('gives back what is left under every id, after what is under way', async () => {
    const { identity, store, retired } = setUp()
    identity.taken(7)
    identity.lost()
    identity.taken(8)
    let stopped = false
    const stopping = identity.stop().then(() => (stopped = true))
    await retired()
    expect(store.retire.next().args).toEqual([[8], 0, []])
    expect(stopped).toBe(false)
    await retired()
    await stopping
  })

  test('without a session says that no id is left', async () => {
    const { identity, store, retired } = setUp()
    await identity.stop()
    identity.taken(7)
    identity.lost()
    const stopping = identity.stop()
    await idle()
    expect(store.retire.next().args).toEqual([[7], 0, []])
    await retired()
    await stopping
  })
})
