import { createServer } from 'node:http'
import type { IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { GatewayError } from '../domain/errors.ts'
import { declaredBytes, hasBody } from './body.ts'
import { Exchange } from './exchange.ts'
import { refusalOf, sendProblem, writeProblem } from './problem.ts'

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

export type HttpServerOptions = {
  /** How long an idle connection stays open. */
  readonly keepAliveMs: number
  /** Of a longer body none of it is asked for. */
  readonly bodyMaxBytes: number
  /** Keeps a connection open during `close` although no answer is under way on it. */
  readonly isHeld?: (socket: Socket) => boolean
}

export function createHttpServer(
  handlers: ExchangeHandlers,
  { keepAliveMs, bodyMaxBytes, isHeld = () => false }: HttpServerOptions,
): HttpServer {
  // Answers under way per connection. To Node a connection is idle once its answer was ended, written or not.
  const answers = new Map<Socket, number>()
  // The last request with a body of a connection: what is malformed may be that body. Few pulls have one.
  const bodies = new Map<Socket, Exchange>()
  // One function for all: of one that closes over its request or socket, each parked pull would keep a copy.
  function exchangeClosed(this: Exchange): void {
    const { socket } = this.req
    const left = answers.get(socket)
    if (left !== undefined) answers.set(socket, left - 1)
    if (bodies.get(socket) === this) bodies.delete(socket)
    handlers.closed(this)
  }
  function socketClosed(this: Socket): void {
    answers.delete(this)
    bodies.delete(this)
  }
  function received(req: IncomingMessage, exchange: Exchange): void {
    const { socket } = req
    answers.set(socket, (answers.get(socket) ?? 0) + 1)
    if (hasBody(req)) bodies.set(socket, exchange)
    exchange.on('close', exchangeClosed)
    handlers.received(exchange)
  }
  const server = createServer<typeof IncomingMessage, typeof Exchange>(
    // TCP probes find executors that vanished without a word. Without Host Node would answer with no body.
    {
      ...{ keepAlive: true, keepAliveInitialDelay: 15_000, noDelay: true },
      ...{ requireHostHeader: false, ServerResponse: Exchange },
    },
    received,
  )
  // Nobody knows whether a client sends its body after a refusal, so the next request could not be found.
  server.on('checkExpectation', (req: IncomingMessage, exchange: Exchange) => {
    exchange.shouldKeepAlive = false
    received(req, exchange)
  })
  server.on('checkContinue', (req: IncomingMessage, exchange: Exchange) => {
    if (declaredBytes(req) > bodyMaxBytes) exchange.shouldKeepAlive = false
    else exchange.writeContinue()
    received(req, exchange)
  })
  server.on('clientError', (error: Error, socket: Socket) => {
    const exchange = bodies.get(socket)
    if (exchange?.req.complete === false && exchange.socket !== null) sendProblem(exchange, refusalOf(error))
    // Behind a request that is being answered: to the client this would be its answer.
    else if (answers.get(socket) === 0) writeProblem(socket, refusalOf(error))
    socket.destroySoon()
  })
  server.on('connect', (_req: IncomingMessage, socket: Duplex) => {
    writeProblem(socket, new GatewayError('method-not-allowed', { detail: 'this is no proxy' }))
    socket.end()
  })
  server.keepAliveTimeout = keepAliveMs
  // Node counts this time from the first byte of a request, but for the first request from the opening of its connection.
  // 60 s would close connections that a pool opened in advance and has not used yet. The price: a client that sends
  // the head of a request slowly keeps its connection as long.
  server.headersTimeout = Math.max(60_000, keepAliveMs + 5_000)
  server.requestTimeout = Math.max(300_000, server.headersTimeout)
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
