import { describe, expect, test } from 'vitest'
import { createDispatchWorld } from '../support/fake-dispatch.ts'
import type { DispatchWorld, Probe } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { subscription } from '../support/fake-job-store.ts'

// I2: a waiter settles exactly once, whatever happens to it, in whatever order, in one tick or in several.

const waitMs = 1_000

type Happening = (world: DispatchWorld, pull: Probe) => void

const answerClaim = ({ store }: DispatchWorld, ...ids: string[]) => {
  if (store.claim.open.length > 0) store.nextClaim().give(...ids)
}

const happenings: Record<string, Happening> = {
  'a job': (world) => answerClaim(world, `job ${world.store.claim.total()}`),
  nothing: (world) => answerClaim(world),
  failure: ({ store }) => {
    if (store.claim.open.length > 0) store.nextClaim().fail(new Error('no database'))
  },
  leave: (world, pull) => leaves(world, pull),
  death: (_world, pull) => void (pull.live = false),
  deadline: ({ clock }) => clock.advance(waitMs),
  end: ({ dispatcher }) => void dispatcher.endSubscriptions(['s']),
  kick: ({ dispatcher }) => void dispatcher.kick('b', 'notification'),
  drain: ({ dispatcher, clock }) => {
    void dispatcher.stopClaiming()
    void dispatcher.answerAll(0)
    clock.advance(0)
  },
}

const departures = new WeakMap<Probe, number>()
function leaves({ dispatcher }: DispatchWorld, pull: Probe): void {
  if (dispatcher.leave(pull.waiter)) departures.set(pull, (departures.get(pull) ?? 0) + 1)
}

function orders(names: readonly string[], length: number): string[][] {
  if (length === 0) return [[]]
  return names.flatMap((name) =>
    orders(
      names.filter((other) => other !== name),
      length - 1,
    ).map((rest) => [name, ...rest]),
  )
}

async function run(order: readonly string[], topics: string[], inOneTick: boolean): Promise<void> {
  const world = createDispatchWorld()
  const pull = world.pull(subscription('s', topics), { waitMs })
  const given: string[] = []
  const claim = world.store.claim
  for (const name of order) {
    const before = claim.open.length
    const id = `job ${claim.total()}`
    happenings[name]?.(world, pull)
    if (name === 'a job' && before > claim.open.length) given.push(id)
    if (!inOneTick) await idle()
  }
  await idle()
  // Whatever is still open comes to an end.
  for (let n = 0; n < 20 && claim.open.length > 0; n += 1) {
    world.store.nextClaim().give()
    await idle()
  }
  expect(claim.open, 'claims without end').toHaveLength(0)
  const endings = () => pull.answers.length + (departures.get(pull) ?? 0)
  expect(endings()).toBeLessThanOrEqual(1)
  leaves(world, pull)
  expect(endings(), 'settled exactly once').toBe(1)
  expect(world.clock.timers(), 'timers of a pull that has ended').toEqual([])
  leaves(world, pull)
  world.clock.advance(10 * waitMs)
  void world.dispatcher.endSubscriptions(['s'])
  world.dispatcher.kickAll('resync')
  await idle()
  expect(endings(), 'settled once for all').toBe(1)

  const [answer] = pull.answers
  const handedOut = answer?.kind === 'jobs' ? answer.jobs.map(({ id }) => id) : []
  expect([...handedOut, ...world.givenBack].toSorted(), 'each job once').toEqual(given.toSorted())
  expect(world.dispatcher.parked).toBe(0)
  expect(world.dispatcher.topicsWithWaiters()).toEqual([])
}

const names = Object.keys(happenings)

describe.each([{ topics: ['b'] }, { topics: ['b', 'c'] }])('on $topics', ({ topics }) => {
  test.each(names)(
    '%s first: settles exactly once under all orders of two and three events',
    async (first) => {
      const rest = names.filter((name) => name !== first)
      for (const others of [...orders(rest, 1), ...orders(rest, 2)]) {
        for (const inOneTick of [true, false]) {
          const order = [first, ...others]
          await run(order, topics, inOneTick).catch((cause: unknown) => {
            throw new Error(`${order.join(', ')}${inOneTick ? ' in one tick' : ''}: ${String(cause)}`, {
              cause,
            })
          })
        }
      }
    },
  )
})
