import { connect, createServer } from 'node:net'
import type { Server } from 'node:net'

/** A server, not listening yet, that passes each connection on to the Postgres of the URL. */
export function passTo(url: () => string): Server {
  return createServer((socket) => {
    const { port, hostname } = new URL(url())
    const there = connect(Number(port), hostname)
    for (const one of [socket, there]) one.on('error', () => (socket.destroy(), there.destroy()))
    socket.pipe(there).pipe(socket)
  })
}
