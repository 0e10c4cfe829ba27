import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, beforeEach } from 'vitest'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { createHandOver } from '../../src/http/hand-over.ts'
import type { HandOver } from '../../src/http/hand-over.ts'
import { createFakeClock } from './fake-clock.ts'
import type { FakeClock } from './fake-clock.ts'
import { job } from './fake-job-store.ts'

export const payload = '{"jobSpec":1}'
// More than the buffers of both ends hold: such an answer is not finished while nobody reads it.
export const large = 'x'.repeat(32 * 1024 * 1024)
export const pullRequest = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'

type Hold = Parameters<HandOver['write']>[2]

/** A server whose answers go through a hand-over, on real sockets. Its requests are answered by the test. */
export type HandOverWorld = {
  readonly clock: FakeClock
  readonly handOver: HandOver
  readonly events: readonly GatewayEvent[]
  /** What was reported to the database, as `confirm 1,2`. */
  readonly reported: readonly string[]
  /** A client that has sent so many requests at once, and the last of them as the server has it. */
  ask(times?: number): Promise<{ client: Socket; res: ServerResponse }>
  requestAt(index: number): ServerResponse
  hold(ack: Hold['ack'], ...ids: string[]): Hold
  /** Writes the answer; resolves once the operating system has it and the client has read it. */
  deliver(client: Socket, res: ServerResponse, ack: Hold['ack'], id?: string): Promise<void>
  /** Resolves when something has been reported. */
  report(): Promise<void>
}

export function useHandOver(): HandOverWorld {
  let clock: FakeClock
  let handOver: HandOver
  let events: GatewayEvent[]
  let reported: string[]
  const happened = new EventEmitter()
  const clients: Socket[] = []
  const requests: ServerResponse[] = []
  const server = createServer((req: IncomingMessage, res: ServerResponse) => {
    handOver.requestOn(req.socket)
    requests.push(res)
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

  function requestAt(index: number): ServerResponse {
    const res = requests[index]
    if (res === undefined) throw new Error('no such request')
    return res
  }
  function hold(ack: Hold['ack'], ...ids: string[]): Hold {
    return { jobs: ids.map((id) => job(id)), ack, wokenAt: clock.now() }
  }

  return {
    get clock() {
      return clock
    },
    get handOver() {
      return handOver
    },
    get events() {
      return events
    },
    get reported() {
      return reported
    },
    ...{ requestAt, hold },
    async ask(times = 1) {
      const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
      client.on('error', () => undefined)
      clients.push(client)
      client.write(pullRequest.repeat(times))
      while (requests.length < times) await once(happened, 'request')
      return { client, res: requestAt(times - 1) }
    },
    async deliver(client, res, ack, id = '1') {
      const finished = once(res, 'finish')
      handOver.write(res, payload, hold(ack, id))
      await Promise.all([finished, once(client, 'data')])
    },
    async report() {
      if (reported.length === 0) await once(happened, 'report')
    },
  }
}

/** Resolves when the connection of the response has closed, with an error or without. */
export function closeOf({ socket }: ServerResponse): Promise<void> {
  return new Promise((resolve) => socket?.once('close', () => resolve()))
}
