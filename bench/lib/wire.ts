import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { now } from './time.ts'

export type Answer = { readonly status: number; readonly text: string; readonly at: number }

export type Wire = {
  /** One request at a time; `body` is JSON, or empty. */
  send(method: string, path: string, body?: string): Promise<Answer>
  close(): void
}

// One for all connections: each answer is copied out of it before the next one is read.
const shared = Buffer.alloc(256 * 1024)

/**
 * A kept-alive HTTP/1.1 connection over a bare socket: the generator shares two cores with what it measures, and
 * node:http costs it about as much as the gateway spends. ASCII, and answers with a Content-Length only.
 */
export function openWire(url: string): Wire {
  const { hostname, port, host } = new URL(url)
  let socket: Socket | undefined
  let waiting: { resolve(answer: Answer): void; reject(error: Error): void } | undefined
  let received = ''

  function fail(error: Error): void {
    socket?.destroy()
    socket = undefined
    received = ''
    const request = waiting
    waiting = undefined
    request?.reject(error)
  }

  function onData(length: number): void {
    received += shared.toString('latin1', 0, length)
    const headEnd = received.indexOf('\r\n\r\n')
    if (headEnd < 0) return
    const status = Number(received.slice(9, 12))
    const head = received.slice(0, headEnd)
    const bodyLength = status === 204 ? 0 : Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? NaN)
    if (Number.isNaN(bodyLength)) return fail(new Error(`an answer without Content-Length: ${head}`))
    const bodyStart = headEnd + 4
    if (received.length < bodyStart + bodyLength) return
    const text = received.slice(bodyStart, bodyStart + bodyLength)
    received = ''
    const request = waiting
    waiting = undefined
    request?.resolve({ status, text, at: now() })
  }

  function open(): Socket {
    const opened = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      onread: {
        buffer: shared,
        callback: (length) => {
          onData(length)
          return true
        },
      },
    })
    opened.on('error', fail)
    opened.on('close', () => {
      if (opened === socket) fail(new Error('the gateway closed the connection'))
    })
    return opened
  }

  return {
    send(method, path, body = '') {
      return new Promise((resolve, reject) => {
        if (waiting !== undefined) {
          reject(new Error('one request at a time'))
          return
        }
        waiting = { resolve, reject }
        socket ??= open()
        const type = body === '' ? '' : 'Content-Type: application/json\r\n'
        socket.write(
          `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\n${type}Content-Length: ${body.length}\r\n\r\n${body}`,
        )
      })
    },
    close() {
      waiting = undefined
      socket?.destroy()
      socket = undefined
    },
  }
}

/** The answer's JSON, or an error that says what came instead. */
export function jsonOf({ status, text }: Answer): unknown {
  if (status !== 200 && status !== 201)
    throw new Error(`the gateway answered ${status}: ${text.slice(0, 200)}`)
  return JSON.parse(text)
}
