import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Preamble } from './links.ts'

/** One connection of an executor, byte by byte: what arrives in part is seen, and how it ends is for the caller to say. */

export type Reply = { readonly status: number; readonly text: string; readonly firstByteAt: number }

export type Broken = {
  readonly broken: true
  readonly firstByteAt: number | null
  /** What had arrived of the answer. */
  readonly text: string
}

export type Wire = {
  /** One at a time. */
  request(
    method: string,
    path: string,
    json?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Reply | Broken>
  /** From the first byte of the answer to the request that is open. */
  onFirstByte(call: () => void): void
  end(by: 'fin' | 'rst'): void
  readonly open: boolean
}

export type WireOptions = {
  readonly port: number
  /** For the proxy; null without one. */
  readonly preamble: Preamble | null
  readonly reading: 'normal' | 'never' | 'slow'
  readonly onClosed: (by: 'fin' | 'rst' | 'peer' | 'peer reset') => void
  readonly onUnasked: (bytes: number) => void
}

type Open = { readonly resolve: (reply: Reply | Broken) => void }

const slowBytes = 20_000
const slowMs = 25

export function openWire({ port, preamble, reading, onClosed, onUnasked }: WireOptions): Wire {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let received: Buffer = Buffer.alloc(0)
  let firstByteAt: number | null = null
  let open: Open | undefined
  let firstByte: (() => void) | undefined
  let ended: 'fin' | 'rst' | undefined
  let failed = false

  if (preamble !== null) socket.write(`${JSON.stringify(preamble)}\n`)
  socket.on('error', () => (failed = true))
  socket.once('close', () => {
    settle({ broken: true, firstByteAt, text: received.toString() })
    onClosed(ended ?? (failed ? 'peer reset' : 'peer'))
  })
  socket.once('end', () => socket.end())
  if (reading === 'normal') socket.on('data', take)
  if (reading === 'slow') readSlowly(socket, take)

  function settle(reply: Reply | Broken): void {
    const { resolve } = open ?? {}
    open = undefined
    received = Buffer.alloc(0)
    firstByteAt = null
    resolve?.(reply)
  }

  function take(chunk: Buffer): void {
    if (open === undefined) {
      if (ended === undefined) onUnasked(chunk.length)
      return
    }
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
    if (firstByteAt === null) {
      firstByteAt = Date.now()
      firstByte?.()
    }
    const headEnd = received.indexOf('\r\n\r\n')
    if (headEnd < 0) return
    const head = received.toString('latin1', 0, headEnd)
    const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
    const total = headEnd + 4 + length
    if (received.length < total) return
    const [text, rest] = [received.toString('utf8', headEnd + 4, total), received.length - total]
    settle({ status: Number(head.slice(9, 12)), text, firstByteAt })
    if (rest > 0) onUnasked(rest)
  }

  return {
    request(method, path, json, headers = {}) {
      if (socket.destroyed || ended !== undefined) {
        return Promise.resolve({ broken: true, firstByteAt: null, text: '' })
      }
      const body = json === undefined ? '' : JSON.stringify(json)
      const all = {
        Host: 'gateway',
        ...(json === undefined
          ? {}
          : { 'Content-Type': 'application/json', 'Content-Length': String(Buffer.byteLength(body)) }),
        ...headers,
      }
      const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
      return new Promise((resolve) => {
        open = { resolve }
        socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`)
      })
    },
    onFirstByte(call) {
      firstByte = call
      if (reading !== 'never') return
      // Nothing asks for what arrives, but Node takes a first piece of it all the same.
      const poll = setInterval(() => {
        if (socket.bytesRead === 0 && !socket.destroyed) return
        clearInterval(poll)
        call()
      }, 10)
    },
    end(by) {
      if (socket.destroyed || ended !== undefined) return
      ended = by
      if (by === 'rst') socket.resetAndDestroy()
      // As a client that gives up: its FIN goes out, and nothing is read any more.
      else socket.destroy()
    },
    get open() {
      return !socket.destroyed && ended === undefined
    },
  }
}

function readSlowly(socket: Socket, take: (chunk: Buffer) => void): void {
  socket.on('readable', () => {
    const read = () => {
      const chunk = (socket.read(Math.min(slowBytes, socket.readableLength)) ?? null) as Buffer | null
      if (chunk === null) return
      take(chunk)
      setTimeout(read, slowMs)
    }
    read()
  })
}
