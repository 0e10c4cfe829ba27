import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { Exchange } from './exchange.ts'

export type ExchangeHandlers = {
  received(exchange: Exchange): void
  /** Once for each: it was answered, or its connection is gone. */
  closed(exchange: Exchange): void
}

export type HttpServer = {
  /** Resolves to the URL once the port is open; rejects with what to do if it cannot be. */
  listen(host: string, port: number): Promise<string>
  /** Stops accepting and resolves when the answers under way are written; idle connections are closed. */
  close(): Promise<void>
}

const sweepMs = 50

/** `isHeld` keeps a connection open during `close` although no answer is under way on it. */
export function createHttpServer(
  handlers: ExchangeHandlers,
  keepAliveMs: number,
  isHeld: (socket: Socket) => boolean = () => false,
): HttpServer {
  // Answers under way per connection. To Node a connection is idle once its answer was ended, written or not.
  const answers = new Map<Socket, number>()
  // One function for all: of one that closes over its request or socket, each parked pull would keep a copy.
  function exchangeClosed(this: Exchange): void {
    const { socket } = this.req
    const left = answers.get(socket)
    if (left !== undefined) answers.set(socket, left - 1)
    handlers.closed(this)
  }
  function socketClosed(this: Socket): void {
    answers.delete(this)
  }
  // TCP probes find executors that vanished without a word.
  const server = createServer(
    { keepAlive: true, keepAliveInitialDelay: 15_000, noDelay: true, ServerResponse: Exchange },
    ({ socket }, exchange) => {
      answers.set(socket, (answers.get(socket) ?? 0) + 1)
      exchange.on('close', exchangeClosed)
      handlers.received(exchange)
    },
  )
  server.keepAliveTimeout = keepAliveMs
  server.headersTimeout = Math.max(60_000, keepAliveMs + 5_000)
  server.on('connection', (socket) => {
    answers.set(socket, 0)
    socket.on('close', socketClosed)
  })
  // server.close() calls it too. It also ends connections that clients opened in advance and never used.
  server.closeIdleConnections = () => {
    for (const [socket, underWay] of answers) if (underWay === 0 && !isHeld(socket)) socket.destroy()
  }

  return {
    async listen(host, port) {
      await new Promise<void>((resolve, reject) => {
        server.once('error', (cause: NodeJS.ErrnoException) => {
          const hint = cause.code === 'EADDRINUSE' ? ': choose another PULLGATE_PORT' : ''
          reject(
            new Error(`cannot listen on ${host}:${port} (${cause.code ?? cause.message})${hint}`, { cause }),
          )
        })
        server.listen({ host, port, backlog: 4096 }, resolve)
      })
      const address = server.address() as AddressInfo
      const name = address.family === 'IPv6' ? `[${address.address}]` : address.address
      return `http://${name}:${address.port}`
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      const timer = setInterval(() => server.closeIdleConnections(), sweepMs)
      try {
        await closed
      } finally {
        clearInterval(timer)
      }
    },
  }
}
