import { describe, expect, test } from 'vitest'
import { createClaiming } from '../../src/dispatch/claiming.ts'
import { createHeldJobs } from '../../src/dispatch/held-jobs.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { Claim, ClaimReply, DueClaim, Held, JobStore, Slot } from '../../src/domain/ports.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { fakeCall, fill, job, nothingDue, subscription } from '../support/fake-job-store.ts'

const topic = { id: 'a', name: 'jobs_a' }
const auto: Slot = { subscription: subscription('auto'), jobs: 2 }
const explicit: Slot = { subscription: subscription('explicit', ['a'], { ack: 'explicit' }), jobs: 1 }
const later = new Date('2027-01-01')

function setUp() {
  const clock = createFakeClock()
  const store = {
    claim: fakeCall<Parameters<JobStore['claim']>, ClaimReply>(),
    claimDue: fakeCall<Parameters<JobStore['claimDue']>, ClaimReply & DueClaim>(),
    refresh: fakeCall<Parameters<JobStore['refresh']>, Awaited<ReturnType<JobStore['refresh']>>>(),
  }
  const identity: { current: number | undefined } = { current: 7 }
  const events: GatewayEvent[] = []
  const givenBack: string[] = []
  const held = createHeldJobs(clock)
  const claiming = createClaiming({
    ...{ store, identity, held, clock },
    deliveries: { giveBack: (jobs) => void givenBack.push(...jobs.map(({ id }) => id)) },
    emit: (event) => void events.push(event),
  })
  /** A claim that the database answers after so long with jobs 1, 2 … for the slots. */
  async function claim(slots: readonly Slot[], ids: readonly string[], afterMs: number, gateway = 7) {
    const claimed: { claim?: Claim } = {}
    void claiming.claim(topic, slots, { lanes: [], marks: [] }).then((claim) => (claimed.claim = claim))
    clock.advance(afterMs)
    store.claim.next().resolve({ gateway, jobs: fill('a', slots, ids), endedSlots: [] })
    await idle()
    return () => claimed.claim?.jobs.map(({ job }) => job.id)
  }
  /** Answers the refresh after so long: these still count. */
  async function refreshed(afterMs: number, ...ids: string[]) {
    clock.advance(afterMs)
    store.refresh.next().resolve(ids.map((id) => ({ lease: job(id).lease, leaseEndsAt: later })))
    await idle()
  }
  const holding = () => held.all().map(({ id }) => id)
  return { clock, store, identity, events, givenBack, held, claiming, claim, refreshed, holding }
}

test('a claim that is answered within a second is handed out, and watched jobs are held', async () => {
  const { claim, store, givenBack, holding } = setUp()
  const claimed = await claim([auto, explicit], ['1', '2', '3'], 1_000)
  expect(claimed()).toEqual(['1', '2', '3'])
  expect([store.refresh.total(), givenBack, holding()]).toEqual([0, [], ['1', '2']])
})

describe('a claim under an id that was lost meanwhile', () => {
  test.each([undefined, 0, 8])('is given back, all of it, and not handed out; now: %s', async (current) => {
    const { claim, identity, events, givenBack, holding } = setUp()
    identity.current = current
    const claimed = await claim([auto, explicit], ['1', '2', '3'], 5)
    expect(claimed()).toEqual([])
    expect([givenBack, holding()]).toEqual([['1', '2', '3'], []])
    expect(events).toEqual([{ type: 'jobs returned', reason: 'session lost', jobs: 3 }])
  })
  test('also while it was made to count anew', async () => {
    const { claim, identity, refreshed, givenBack } = setUp()
    const claimed = await claim([auto, explicit], ['1', '2', '3'], 1_001)
    identity.current = 8
    await refreshed(10, '1', '2')
    expect([claimed(), givenBack]).toEqual([[], ['1', '2', '3']])
  })
  test('says that ready jobs are left, so that they are looked for again', async () => {
    const { claiming, store, identity } = setUp()
    const claiming1 = claiming.claim(topic, [auto], { lanes: [], marks: [] })
    store.claim.next().resolve({ gateway: 6, jobs: fill('a', [auto], ['1']), endedSlots: [] })
    expect(await claiming1).toEqual({ jobs: [], endedSlots: [], left: true })
    expect(identity.current).toBe(7)
  })
})

describe('a claim that is answered after more than a second', () => {
  test('with explicit acknowledgement is handed out: nobody else acts on it', async () => {
    const { claim, store, holding } = setUp()
    const claimed = await claim([explicit], ['1'], 9_000)
    expect([claimed(), store.refresh.total(), holding()]).toEqual([['1'], 0, []])
  })
  test('with automatic acknowledgement is first made to count anew', async () => {
    const { claim, store, refreshed, givenBack, holding } = setUp()
    const claimed = await claim([auto, explicit], ['1', '2', '3'], 1_001)
    expect(claimed()).toBeUndefined()
    expect(store.refresh.next().args[0].map(({ id }: Held) => id)).toEqual(['1', '2'])
    await refreshed(1_000, '1', '2')
    expect([claimed(), givenBack, holding()]).toEqual([['1', '2', '3'], [], ['1', '2']])
  })
  test('is given back where it does not count any more', async () => {
    const { claim, refreshed, events, givenBack, holding } = setUp()
    const claimed = await claim([auto, explicit], ['1', '2', '3'], 1_001)
    await refreshed(10, '2')
    expect([claimed(), givenBack, holding()]).toEqual([['2', '3'], ['1'], ['2']])
    expect(events).toEqual([{ type: 'jobs returned', reason: 'answer late', jobs: 1 }])
  })
  test('is given back where that is answered late as well, or not at all', async () => {
    const { claim, store, refreshed, events, givenBack, holding } = setUp()
    const late = await claim([auto, explicit], ['1', '2', '3'], 1_001)
    await refreshed(1_001, '1', '2')
    const failed = await claim([auto], ['4'], 1_001)
    const error = new Error('no database')
    store.refresh.next().reject(error)
    await idle()
    expect([late(), failed(), givenBack, holding()]).toEqual([['3'], [], ['1', '2', '4'], []])
    expect(events).toContainEqual({ type: 'upkeep failed', task: 'gateways', error })
  })
  test('has the end of its lease from then', async () => {
    const { clock, claiming, store, refreshed } = setUp()
    const claim = claiming.claim(topic, [auto], { lanes: [], marks: [] })
    clock.advance(1_001)
    store.claim.next().resolve({ gateway: 7, jobs: fill('a', [auto], ['1']), endedSlots: [] })
    await idle()
    await refreshed(0, '1')
    expect((await claim).jobs[0]?.job.leaseEndsAt).toBe(later)
  })
})

describe('held jobs', () => {
  test('are held until they are reported', () => {
    const { held, holding } = setUp()
    held.add([job('1'), job('2')])
    held.reported([job('1'), job('9')])
    expect(holding()).toEqual(['2'])
  })
  test('are forgotten after three minutes, when nobody asks for them any more', () => {
    const { clock, held, holding } = setUp()
    held.add([job('1')])
    clock.advance(180_000)
    held.add([job('2')])
    expect(holding()).toEqual(['1', '2'])
    clock.advance(1)
    held.add([])
    expect(holding()).toEqual(['2'])
  })
})

test('of a claim that runs due work first the same is left out, and what fell due is told', async () => {
  const { claiming, store, identity, givenBack } = setUp()
  const claimed = claiming.claimDue(500, null, topic, [auto], { lanes: [], marks: [] })
  identity.current = 8
  const due = { ...nothingDue, promoted: 1 }
  store.claimDue.next().resolve({ gateway: 7, jobs: fill('a', [auto], ['1']), endedSlots: [], due })
  expect(await claimed).toMatchObject({ jobs: [], left: true, due: { promoted: 1 } })
  expect(givenBack).toEqual(['1'])
})

test('a claim whose reply cannot be dealt with goes back, all of it', async () => {
  const { claiming, store, events, givenBack, held } = setUp()
  held.add = () => {
    throw new Error('out of order')
  }
  const claimed = claiming.claim(topic, [auto, explicit], { lanes: [], marks: [] })
  store.claim
    .next()
    .resolve({ gateway: 7, jobs: fill('a', [auto, explicit], ['1', '2', '3']), endedSlots: [] })
  await expect(claimed).rejects.toThrow('out of order')
  expect(givenBack).toEqual(['1', '2', '3'])
  expect(events).toEqual([{ type: 'jobs returned', reason: 'answer failed', jobs: 3 }])
})
