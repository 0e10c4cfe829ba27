import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import type { Response } from 'express'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { ClaimedJob } from '../../src/domain/types.ts'
import { createHandOver } from '../../src/http/hand-over.ts'
import type { HandOver } from '../../src/http/hand-over.ts'
import { createFakeClock, idle } from '../support/fake-clock.ts'
import type { FakeClock } from '../support/fake-clock.ts'
import { job } from '../support/fake-job-store.ts'

// Real sockets on the loopback interface; only time is made up.

const payload = '{"jobSpec":1}'
// More than the buffers of both ends hold: such an answer is not finished while nobody reads it.
const large = 'x'.repeat(32 * 1024 * 1024)

let clock: FakeClock
let handOver: HandOver
let events: GatewayEvent[]
let reported: string[]
const happened = new EventEmitter()
const clients: Socket[] = []
const requests: { readonly req: IncomingMessage; readonly res: Response }[] = []
const server = createServer((req: IncomingMessage, res: ServerResponse) => {
  handOver.requestOn(req.socket)
  requests.push({ req, res: res as Response })
  happened.emit('request')
})

beforeEach(async () => {
  clock = createFakeClock()
  events = []
  reported = []
  const report = (verb: string) => (jobs: readonly { id: string }[]) => {
    reported.push(`${verb} ${jobs.map(({ id }) => id).join(',')}`)
    happened.emit('report')
  }
  const deliveries = {
    ...{ giveBack: report('give back'), confirm: report('confirm'), doubt: report('doubt') },
    settled: () => Promise.resolve(),
  }
  handOver = createHandOver({ deliveries, clock, emit: (event) => void events.push(event) })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  server.closeAllConnections()
  requests.length = 0
  await new Promise((resolve) => server.close(resolve))
})

const request = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'

/** A client that has sent so many requests, and the last of them as the server has it. */
async function ask(times = 1) {
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  client.on('error', () => undefined)
  clients.push(client)
  client.write(request.repeat(times))
  while (requests.length < times) await once(happened, 'request')
  return { client, res: requestAt(times - 1) }
}

function requestAt(index: number): Response {
  const one = requests[index]
  if (one === undefined) throw new Error('no such request')
  return one.res
}

function hold(ack: 'auto' | 'explicit', ...ids: string[]) {
  return { jobs: ids.map((id): ClaimedJob => job(id)), ack, wokenAt: clock.now() }
}

/** Writes the answer; resolves once the operating system has it and the client has read it. */
async function deliver(client: Socket, res: Response, ack: 'auto' | 'explicit', id = '1') {
  const finished = once(res, 'finish')
  handOver.write(res, payload, hold(ack, id))
  await Promise.all([finished, once(client, 'data')])
}

/** Resolves when the connection of the response has closed, with an error or without. */
function closeOf({ socket }: Response): Promise<void> {
  return new Promise((resolve) => socket?.once('close', () => resolve()))
}

async function report(): Promise<void> {
  if (reported.length === 0) await once(happened, 'report')
}

describe('explicit acknowledgement', () => {
  test('of an answer that was written reports nothing', async () => {
    const { client, res } = await ask()
    const closed = closeOf(res)
    await deliver(client, res, 'explicit')
    client.resetAndDestroy()
    await closed
    clock.advance(10_000)
    expect(reported).toEqual([])
    expect(events).toEqual([{ type: 'response written', wakeSeconds: 0 }])
  })

  test('is given back when the connection closes before the answer is written', async () => {
    const { client, res } = await ask()
    const closed = closeOf(res)
    handOver.write(res, large, hold('explicit', '1', '2'))
    client.destroy()
    await closed
    await idle()
    expect(reported).toEqual(['give back 1,2'])
    expect(events).toEqual([])
  })
})

describe('automatic acknowledgement', () => {
  test('is confirmed by the next request on the connection', async () => {
    const { client, res } = await ask()
    await deliver(client, res, 'auto')
    expect(reported).toEqual([])
    client.write(request)
    await report()
    expect(reported).toEqual(['confirm 1'])
    expect(clock.timers()).toEqual([])
  })

  test('is confirmed by a clean end', async () => {
    const { client, res } = await ask()
    await deliver(client, res, 'auto')
    client.end()
    await report()
    expect(reported).toEqual(['confirm 1'])
  })

  test('is confirmed by a second without a reset', async () => {
    const { client, res } = await ask()
    await deliver(client, res, 'auto')
    clock.advance(999)
    await idle()
    expect(reported).toEqual([])
    clock.advance(1)
    expect(reported).toEqual(['confirm 1'])
  })

  test('is confirmed once, whatever follows', async () => {
    const { client, res } = await ask()
    const closed = closeOf(res)
    await deliver(client, res, 'auto')
    client.write(request)
    await report()
    client.resetAndDestroy()
    await closed
    clock.advance(10_000)
    expect(reported).toEqual(['confirm 1'])
  })

  test('is in doubt when the connection is reset after the answer was written', async () => {
    const { client, res } = await ask()
    await deliver(client, res, 'auto')
    client.resetAndDestroy()
    await report()
    clock.advance(10_000)
    expect(reported).toEqual(['doubt 1'])
    expect(events).toEqual([{ type: 'response written', wakeSeconds: 0 }])
  })

  test('is in doubt when the client closes without having read the answer', async () => {
    const { client, res } = await ask()
    client.pause()
    const finished = once(res, 'finish')
    handOver.write(res, payload, hold('auto', '1'))
    await finished
    client.destroy()
    await report()
    expect(reported).toEqual(['doubt 1'])
  })

  test('is in doubt when the connection closes before the answer is written', async () => {
    const { client, res } = await ask()
    const closed = closeOf(res)
    handOver.write(res, large, hold('auto', '1', '2'))
    client.destroy()
    await closed
    await idle()
    expect(reported).toEqual(['doubt 1,2'])
    expect(events).toEqual([])
  })

  test('of two answers on one connection, sent for at once, confirms both', async () => {
    const { client } = await ask(2)
    await deliver(client, requestAt(0), 'auto', '1')
    const second = requestAt(1)
    if (second.socket === null) await once(second, 'socket')
    await deliver(client, second, 'auto', '2')
    clock.advance(1_000)
    expect(reported.toSorted()).toEqual(['confirm 1', 'confirm 2'])
  })
})

describe.each(['auto', 'explicit'] as const)('%s, not reachable any more', (ack) => {
  test('a closed connection: nothing is written, and all is given back', async () => {
    const { client, res } = await ask()
    client.destroy()
    await once(res, 'close')
    handOver.write(res, payload, hold(ack, '1', '2'))
    expect(reported).toEqual(['give back 1,2'])
    expect(events).toEqual([])
  })

  test('an answer that is behind another on its connection', async () => {
    const { res } = await ask(2)
    handOver.write(res, payload, hold(ack, '1'))
    expect(reported).toEqual(['give back 1'])
  })
})

test('wakeSeconds counts from the hint', async () => {
  const { client, res } = await ask()
  const held = hold('explicit', '1')
  clock.advance(250)
  const read = Promise.all([once(res, 'finish'), once(client, 'data')])
  handOver.write(res, payload, held)
  await read
  expect(events).toEqual([{ type: 'response written', wakeSeconds: 0.25 }])
})

test('settled waits for the evidence of every answer', async () => {
  await handOver.settled()
  const { client, res } = await ask()
  await deliver(client, res, 'auto')
  let settled = false
  const done = handOver.settled().then(() => (settled = true))
  await idle()
  expect(settled).toBe(false)
  clock.advance(1_000)
  await done
  expect(reported).toEqual(['confirm 1'])
})
