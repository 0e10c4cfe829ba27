import { createServer } from 'node:http'
import type { RequestListener } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

export type HttpServer = {
  /** Resolves to the URL once the port is open; rejects with what to do if it cannot be. */
  listen(host: string, port: number): Promise<string>
  /** Stops accepting and resolves when the answers under way are written; idle connections are closed. */
  close(): Promise<void>
}

const sweepMs = 50

export function createHttpServer(onRequest: RequestListener, keepAliveMs: number): HttpServer {
  // Connections that have not carried a request: clients open them in advance, and Node does not count them as idle.
  const unused = new Set<Socket>()
  // TCP probes find executors that vanished without a word.
  const server = createServer(
    { keepAlive: true, keepAliveInitialDelay: 15_000, noDelay: true },
    (req, res) => {
      unused.delete(req.socket)
      onRequest(req, res)
    },
  )
  server.keepAliveTimeout = keepAliveMs
  server.headersTimeout = Math.max(60_000, keepAliveMs + 5_000)
  server.on('connection', (socket) => {
    unused.add(socket)
    socket.once('close', () => unused.delete(socket))
  })

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
      const sweep = () => {
        server.closeIdleConnections()
        for (const socket of unused) socket.destroy()
      }
      sweep()
      const timer = setInterval(sweep, sweepMs)
      try {
        await closed
      } finally {
        clearInterval(timer)
      }
    },
  }
}
