import { describe, expect, test } from 'vitest'
import { createHeldHeartbeats } from '../../src/dispatch/held-heartbeats.ts'
import type { HeldHeartbeat } from '../../src/dispatch/held-heartbeats.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'

function setUp(heldMax = 10) {
  const clock = createFakeClock()
  const heartbeats = createHeldHeartbeats({ clock, heldMax })
  const open = (job: string) => {
    const held = heartbeats.open(job)
    if (held === undefined) throw new Error('it was not opened')
    return held
  }
  /** What a wait has come to, as it does. */
  const waiting = (held: HeldHeartbeat, ms = 1000) => {
    const seen: string[] = []
    void held.wait(ms).then((what) => seen.push(what))
    return seen
  }
  return { clock, heartbeats, open, waiting }
}

describe('a held heartbeat', () => {
  test('is over when its time is, and not before', async () => {
    const { clock, open, waiting } = setUp()
    const seen = waiting(open('1'))
    clock.advance(999)
    await idle()
    expect(seen).toEqual([])
    clock.advance(1)
    await idle()
    expect(seen).toEqual(['over'])
  })

  test('hears at once what is announced of its job, whoever else holds one, and of no other', async () => {
    const { clock, heartbeats, open, waiting } = setUp()
    const [one, two, other] = [waiting(open('1')), waiting(open('1')), waiting(open('2'))]
    expect([heartbeats.announced('1'), heartbeats.announced('3')]).toEqual([true, false])
    await idle()
    expect([one, two, other]).toEqual([['announced'], ['announced'], []])
    heartbeats.announcedAll()
    await idle()
    expect(other).toEqual(['announced'])
    expect(clock.timers()).toEqual([])
  })

  test('has heard what was announced before it waits, once', async () => {
    const { heartbeats, open, waiting, clock } = setUp()
    const held = open('1')
    heartbeats.announced('1')
    expect(await held.wait(0)).toBe('announced')
    const again = waiting(held)
    await idle()
    expect(again).toEqual([])
    clock.advance(1000)
    await idle()
    expect(again).toEqual(['over'])
    expect(await held.wait(-5)).toBe('over')
  })

  test('is over when its client leaves, and then hears nothing', async () => {
    const { clock, heartbeats, open, waiting } = setUp()
    const held = open('1')
    const seen = waiting(held)
    held.close()
    held.close()
    await idle()
    expect(seen).toEqual(['over'])
    expect(heartbeats.announced('1')).toBe(false)
    expect([heartbeats.size, clock.timers()]).toEqual([0, []])
    expect(await held.wait(1000)).toBe('over')
  })
})

test('so many are held and no more: the next is answered at once', () => {
  const { heartbeats, open } = setUp(2)
  const [first] = [open('1'), open('1')]
  expect(heartbeats.open('2')).toBeUndefined()
  first.close()
  expect(heartbeats.open('2')).toBeDefined()
  expect(heartbeats.size).toBe(2)
})

test('a drain ends all within its time, and opens none', async () => {
  const { clock, heartbeats, open, waiting } = setUp()
  const seen = [waiting(open('1'), 60_000), waiting(open('2'), 60_000)]
  const unwaited = open('3')
  const drained = heartbeats.drain(500)
  expect(heartbeats.open('4')).toBeUndefined()
  clock.advance(500)
  await drained
  expect(seen).toEqual([['over'], ['over']])
  expect(await unwaited.wait(60_000)).toBe('over')
  expect([heartbeats.size, clock.timers()]).toEqual([0, []])
})
