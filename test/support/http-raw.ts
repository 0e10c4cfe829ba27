import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { expect, onTestFinished } from 'vitest'
import { until as waitUntil } from './http.ts'

/** One connection, byte by byte: for what happens when a client stops reading, resets or pipelines. */
export type RawConnection = {
  readonly socket: Socket
  /** Everything read so far. */
  readonly received: string
  send(text: string): void
  /** Sends a pull without a body. */
  pull(subscription: string, query?: string): void
  /** Resolves with the match once what was read has one; rejects when the connection ends first. */
  until(pattern: RegExp): Promise<RegExpExecArray>
  /** Resolves once the first bytes of an answer are here. */
  answered(): Promise<void>
  reset(): void
  readonly closed: Promise<void>
}

/** With `reading: false` the client takes no more than Node's own buffer, as one that hangs. */
export async function openRaw(url: string, { reading = true } = {}): Promise<RawConnection> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), noDelay: true })
  await once(socket, 'connect')
  onTestFinished(() => void socket.destroy())
  let received = ''
  let ended = false
  const watchers = new Set<() => void>()
  const wake = () => watchers.forEach((watcher) => watcher())
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      ended = true
      wake()
      resolve()
    })
  })
  socket.on('error', () => undefined)
  if (reading) {
    socket.setEncoding('utf8').on('data', (text: string) => {
      received += text
      wake()
    })
  }

  function until(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(received)
        if (match === null && !ended) return
        watchers.delete(look)
        if (match !== null) resolve(match)
        else reject(new Error(`the connection ended without ${String(pattern)}: ${received.slice(0, 500)}`))
      }
      watchers.add(look)
      look()
    })
  }

  return {
    socket,
    get received() {
      return received
    },
    send: (text) => void socket.write(text),
    pull: (subscription, query = '') =>
      void socket.write(`PATCH /subscriptions/${subscription}${query} HTTP/1.1\r\nHost: gateway\r\n\r\n`),
    until,
    answered: () => waitUntil(() => expect(socket.bytesRead).toBeGreaterThan(0)),
    reset: () => void socket.resetAndDestroy(),
    closed,
  }
}
