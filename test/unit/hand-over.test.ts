import { once } from 'node:events'
import { describe, expect, test } from 'vitest'
import { idle } from '../support/fake-clock.ts'
import { closeOf, large, payload, pullRequest, useHandOver } from '../support/fake-hand-over.ts'

// Real sockets on the loopback interface; only time is made up.

const world = useHandOver()

describe('explicit acknowledgement', () => {
  test('of an answer that was written reports nothing', async () => {
    const { client, res } = await world.ask()
    const closed = closeOf(res)
    await world.deliver(client, res, 'explicit')
    client.resetAndDestroy()
    await closed
    world.clock.advance(10_000)
    expect(world.reported).toEqual([])
    expect(world.events).toEqual([{ type: 'response written', wakeSeconds: 0 }])
  })

  test('is in doubt when the connection closes before the answer is written', async () => {
    const { client, res } = await world.ask()
    const closed = closeOf(res)
    world.handOver.write(res, large, world.hold('explicit', '1', '2'))
    client.destroy()
    await closed
    await idle()
    expect(world.reported).toEqual(['doubt 1,2'])
    expect(world.events).toEqual([])
  })
})

test('an answer that cannot be written while an offer lasts is cut off when it ends: nobody can accept it any more', async () => {
  const { res } = await world.ask()
  const closed = closeOf(res)
  const { jobs, ...hold } = world.hold('explicit', '1', '2')
  const offered = jobs.map((job) => ({ ...job, offered: true, holdSeconds: 15 }))
  world.handOver.write(res, large, { ...hold, jobs: offered })
  world.clock.advance(14_999)
  expect(world.reported).toEqual([])
  world.clock.advance(1)
  await closed
  expect(world.reported).toEqual(['doubt 1,2'])
})

describe('automatic acknowledgement', () => {
  test('is in doubt, and the answer is cut off, when it cannot be written while the hold lasts', async () => {
    const { res } = await world.ask()
    const closed = closeOf(res)
    world.handOver.write(res, large, world.hold('auto', '1'))
    world.clock.advance(11_999)
    expect(world.reported).toEqual([])
    world.clock.advance(1)
    await closed
    expect(world.reported).toEqual(['doubt 1'])
    expect(world.clock.timers()).toEqual([])
  })

  test('is confirmed by the next request on the connection', async () => {
    const { client, res } = await world.ask()
    await world.deliver(client, res, 'auto')
    expect(world.reported).toEqual([])
    client.write(pullRequest)
    await world.report()
    expect(world.reported).toEqual(['confirm 1'])
    expect(world.clock.timers()).toEqual([])
  })

  test('is confirmed by a clean end', async () => {
    const { client, res } = await world.ask()
    await world.deliver(client, res, 'auto')
    client.end()
    await world.report()
    expect(world.reported).toEqual(['confirm 1'])
  })

  test('is confirmed by a second without a reset', async () => {
    const { client, res } = await world.ask()
    await world.deliver(client, res, 'auto')
    world.clock.advance(999)
    await idle()
    expect(world.reported).toEqual([])
    world.clock.advance(1)
    expect(world.reported).toEqual(['confirm 1'])
  })

  test('is confirmed once, whatever follows', async () => {
    const { client, res } = await world.ask()
    const closed = closeOf(res)
    await world.deliver(client, res, 'auto')
    client.write(pullRequest)
    await world.report()
    client.resetAndDestroy()
    await closed
    world.clock.advance(10_000)
    expect(world.reported).toEqual(['confirm 1'])
  })

  test('is in doubt when the connection is reset after the answer was written', async () => {
    const { client, res } = await world.ask()
    await world.deliver(client, res, 'auto')
    client.resetAndDestroy()
    await world.report()
    world.clock.advance(10_000)
    expect(world.reported).toEqual(['doubt 1'])
    expect(world.events).toEqual([{ type: 'response written', wakeSeconds: 0 }])
  })

  test('is in doubt when the client closes without having read the answer', async () => {
    const { client, res } = await world.ask()
    client.pause()
    const finished = once(res, 'finish')
    world.handOver.write(res, payload, world.hold('auto', '1'))
    await finished
    client.destroy()
    await world.report()
    expect(world.reported).toEqual(['doubt 1'])
  })

  test('is in doubt when the connection closes before the answer is written', async () => {
    const { client, res } = await world.ask()
    const closed = closeOf(res)
    world.handOver.write(res, large, world.hold('auto', '1', '2'))
    client.destroy()
    await closed
    await idle()
    expect(world.reported).toEqual(['doubt 1,2'])
    expect(world.events).toEqual([])
  })

  test('of two answers on one connection, sent for at once, confirms both', async () => {
    const { client } = await world.ask(2)
    await world.deliver(client, world.requestAt(0), 'auto', '1')
    const second = world.requestAt(1)
    if (second.socket === null) await once(second, 'socket')
    await world.deliver(client, second, 'auto', '2')
    world.clock.advance(1_000)
    expect(world.reported.toSorted()).toEqual(['confirm 1', 'confirm 2'])
  })
})

describe.each(['auto', 'explicit'] as const)('%s, not reachable any more', (ack) => {
  test('a closed connection: nothing is written, and all is given back', async () => {
    const { client, res } = await world.ask()
    client.destroy()
    await once(res, 'close')
    world.handOver.write(res, payload, world.hold(ack, '1', '2'))
    expect(world.reported).toEqual(['give back 1,2'])
    expect(world.events).toEqual([])
  })

  test('an answer that is behind another on its connection', async () => {
    const { res } = await world.ask(2)
    world.handOver.write(res, payload, world.hold(ack, '1'))
    expect(world.reported).toEqual(['give back 1'])
  })
})

test('wakeSeconds counts from the hint', async () => {
  const { client, res } = await world.ask()
  const held = world.hold('explicit', '1')
  world.clock.advance(250)
  const read = Promise.all([once(res, 'finish'), once(client, 'data')])
  world.handOver.write(res, payload, held)
  await read
  expect(world.events).toEqual([{ type: 'response written', wakeSeconds: 0.25 }])
})

test('settled waits for the evidence of every answer', async () => {
  await world.handOver.settled()
  const { client, res } = await world.ask()
  await world.deliver(client, res, 'auto')
  let settled = false
  const done = world.handOver.settled().then(() => (settled = true))
  await idle()
  expect(settled).toBe(false)
  world.clock.advance(1_000)
  await done
  expect(world.reported).toEqual(['confirm 1'])
})

test('settled waits for answers that are still being written', async () => {
  const { client, res } = await world.ask()
  client.pause()
  world.handOver.write(res, large, world.hold('explicit', '1'))
  let settled = false
  const done = world.handOver.settled().then(() => (settled = true))
  await idle()
  expect(settled).toBe(false)
  client.resume()
  await done
  expect(world.reported).toEqual([])
})

test('an answer that cannot be written after all is cut off, and its jobs are in doubt', async () => {
  const { res } = await world.ask()
  const closed = closeOf(res)
  res.end = () => {
    throw new RangeError('Invalid string length')
  }
  world.handOver.write(res, payload, world.hold('explicit', '1'))
  await closed
  await idle()
  expect(world.reported).toEqual(['doubt 1'])
  await world.handOver.settled()
})

test('jobs that no answer could be made of go back, and are counted', () => {
  world.handOver.giveBack([])
  world.handOver.giveBack(world.hold('auto', '1', '2').jobs)
  expect(world.reported).toEqual(['give back 1,2'])
  expect(world.events).toEqual([{ type: 'jobs returned', reason: 'answer failed', jobs: 2 }])
})
