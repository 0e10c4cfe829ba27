import { describe, expect, test } from 'vitest'
import { countsByTopic, createUpkeep } from '../../src/dispatch/upkeep.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { Snapshot } from '../../src/domain/reads.ts'
import type { Problem } from '../../src/domain/types.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import { fakeCall } from '../support/fake-job-store.ts'

const snapshot: Snapshot = {
  counts: [
    { topic: 'jobs_a', state: 'ready', jobs: 3, oldestSeconds: 7 },
    { topic: 'jobs_a', state: 'running', jobs: 2, oldestSeconds: null },
    { topic: 'jobs_b', state: 'running', jobs: 9, oldestSeconds: null },
  ],
  takenAt: new Date(0),
  ageSeconds: 2,
  durationSeconds: 0.1,
}

function setUp(random = 0) {
  const clock = createFakeClock({ random: () => random })
  const queue = {
    snapshot: fakeCall<[number], Snapshot | undefined>(),
    upkeep: fakeCall<[], undefined>(),
    mendSequences: fakeCall<[], readonly string[]>(),
    doctor: fakeCall<[], readonly Problem[]>(),
  }
  const directory = { flush: fakeCall<[], undefined>() }
  const events: GatewayEvent[] = []
  const upkeep = createUpkeep({ queue, directory, clock, emit: (event) => void events.push(event) })
  const advance = async (ms: number) => {
    clock.advance(ms)
    await idle()
  }
  return { clock, queue, directory, events, upkeep, advance }
}

describe('the counts', () => {
  test('are those last read, and grow older', async () => {
    const { upkeep, queue, clock } = setUp()
    expect(upkeep.latest()).toBeUndefined()
    upkeep.start()
    expect(queue.snapshot.next().args).toEqual([4.5])
    queue.snapshot.next().resolve(snapshot)
    await idle()
    clock.advance(3_000)
    expect(upkeep.latest()).toEqual({ ...snapshot, ageNowSeconds: 5 })
  })

  test.each([
    { durationSeconds: 0.1, random: 0, ms: 5_000 },
    { durationSeconds: 0.1, random: 0.999, ms: 5_500 },
    { durationSeconds: 3, random: 0, ms: 60_000 },
  ])('that took $durationSeconds s are taken again after $ms ms', async ({ durationSeconds, random, ms }) => {
    const { upkeep, queue, advance } = setUp(random)
    upkeep.start()
    queue.snapshot.next().resolve({ ...snapshot, durationSeconds })
    await idle()
    await advance(ms - 3)
    expect(queue.snapshot.total()).toBe(1)
    await advance(3)
    expect(queue.snapshot.total()).toBe(2)
    expect(queue.snapshot.next().args[0]).toBeCloseTo(Math.max(5, durationSeconds * 20) * 0.9)
  })

  test('stay when nobody counted, or counting failed', async () => {
    const { upkeep, queue, advance, events } = setUp()
    upkeep.start()
    queue.snapshot.next().resolve(snapshot)
    await idle()
    await advance(5_000)
    queue.snapshot.next().resolve(undefined)
    await idle()
    await advance(5_000)
    const error = new Error('no database')
    queue.snapshot.next().reject(error)
    await idle()
    expect(upkeep.latest()?.ageNowSeconds).toBe(12)
    expect(events).toEqual([{ type: 'upkeep failed', task: 'snapshot', error }])
    await advance(5_000)
    expect(queue.snapshot.total()).toBe(4)
  })

  test('of a topic are its own', () => {
    expect(countsByTopic(snapshot)('jobs_a')).toEqual({
      jobs: { ready: 3, running: 2 },
      oldestReadySeconds: 7,
    })
    expect(countsByTopic(snapshot)('jobs_b')).toEqual({ jobs: { running: 9 }, oldestReadySeconds: null })
    expect(countsByTopic(snapshot)('jobs_c')).toEqual({ jobs: {}, oldestReadySeconds: null })
  })
})

describe('upkeep and last uses', () => {
  test('run at the start and every minute, each on its own', async () => {
    const { upkeep, queue, directory, advance, events } = setUp()
    upkeep.start()
    expect([queue.upkeep.total(), directory.flush.total()]).toEqual([1, 1])
    // One that hangs holds up neither the others nor a second of its own.
    const error = new Error('no database')
    directory.flush.next().reject(error)
    await idle()
    await advance(60_000)
    expect([queue.upkeep.total(), directory.flush.total()]).toEqual([1, 2])
    expect(events).toEqual([{ type: 'upkeep failed', task: 'last uses', error }])
  })
})

describe('a check-up', () => {
  const aside = (things: number): Problem => ({
    problem: 'jobs-set-aside',
    things,
    detail: `${things} jobs`,
  })

  test('mends the sequences first, and tells of each problem once until it changes', async () => {
    const { upkeep, queue, advance, events } = setUp()
    const check = async (mended: string[], found: Problem[]) => {
      queue.mendSequences.next().resolve(mended)
      await idle()
      queue.doctor.next().resolve(found)
      await idle()
    }
    upkeep.start()
    await check(['pullgate.job_id_seq'], [aside(1)])
    expect(events).toEqual([
      { type: 'sequences mended', sequences: ['pullgate.job_id_seq'] },
      { type: 'problem found', ...aside(1) },
    ])
    expect(upkeep.problems()).toEqual([aside(1)])
    await advance(60_000)
    await check([], [aside(1)])
    expect(events).toHaveLength(2)
    await advance(60_000)
    await check([], [aside(3)])
    expect(events.slice(2)).toEqual([{ type: 'problem found', ...aside(3) }])
    await advance(60_000)
    await check([], [])
    expect(upkeep.problems()).toEqual([])
  })

  test('that fails is reported, and its next one is not put off', async () => {
    const { upkeep, queue, advance, events } = setUp()
    upkeep.start()
    const error = new Error('no database')
    queue.mendSequences.next().reject(error)
    await idle()
    expect(events).toEqual([{ type: 'upkeep failed', task: 'check-up', error }])
    await advance(60_000)
    expect(queue.mendSequences.total()).toBe(2)
  })
})

describe('check-ups run one at a time', () => {
  const run = async ({ queue }: ReturnType<typeof setUp>) => {
    queue.mendSequences.next().resolve([])
    await idle()
    queue.doctor.next().resolve([])
    await idle()
  }

  test('start joins the check-up that the listener asked for', async () => {
    const all = setUp()
    const asked = all.upkeep.checkUp()
    all.upkeep.start()
    await run(all)
    await asked
    expect([all.queue.mendSequences.total(), all.queue.doctor.total()]).toEqual([1, 1])
    await all.advance(60_000)
    expect(all.queue.mendSequences.total()).toBe(2)
  })

  test('a check-up that is asked for during another runs once, after it: the server may be a new one', async () => {
    const all = setUp()
    all.upkeep.start()
    const asked = [all.upkeep.checkUp(), all.upkeep.checkUp()]
    expect(all.queue.mendSequences.total()).toBe(1)
    await run(all)
    expect(all.queue.mendSequences.total()).toBe(2)
    await run(all)
    await Promise.all(asked)
    expect([all.queue.mendSequences.total(), all.queue.doctor.total()]).toEqual([2, 2])
  })
})

test('stop waits for what is under way and writes down the last uses', async () => {
  const { upkeep, queue, directory, clock } = setUp()
  upkeep.start()
  queue.snapshot.next().resolve(snapshot)
  directory.flush.next().resolve(undefined)
  queue.mendSequences.next().resolve([])
  await idle()
  queue.doctor.next().resolve([])
  await idle()
  let stopped = false
  void upkeep.stop().then(() => (stopped = true))
  await idle()
  expect(directory.flush.total()).toBe(1)
  queue.upkeep.next().resolve(undefined)
  await idle()
  expect([stopped, directory.flush.total()]).toEqual([false, 2])
  directory.flush.next().reject(new Error('no database'))
  await idle()
  expect(stopped).toBe(true)
  clock.advance(600_000)
  await idle()
  expect([queue.snapshot.total(), queue.upkeep.total(), directory.flush.total()]).toEqual([1, 1, 2])
})
