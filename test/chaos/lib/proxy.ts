import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'

/** TCP proxies that pass on what really happens at either end, a reset as a reset, and break what they are told to. */

/** One connection through a proxy. */
export type Pipe = {
  readonly client: Socket
  readonly server: Socket
  /** Bytes of the server's that the client was sent. */
  passed: number
  swallowing: boolean
  /** Of what the server says. */
  delayMs: number
}

/** From now on nothing passes, and neither end hears of the other's end. */
export function swallow(pipe: Pipe): void {
  pipe.swallowing = true
}

export function reset(pipe: Pipe): void {
  pipe.client.resetAndDestroy()
  pipe.server.resetAndDestroy()
}

export function end(pipe: Pipe): void {
  pipe.client.end()
  pipe.server.end()
}

/** `onData` may break the pipe; it tells how much of the server's chunk the client still gets. */
export function joinPipe(
  client: Socket,
  server: Socket,
  onData?: (pipe: Pipe, chunk: Buffer) => number,
): Pipe {
  const pipe: Pipe = { client, server, passed: 0, swallowing: false, delayMs: 0 }
  relay(pipe, client, server, (chunk) => chunk)
  relay(pipe, server, client, (chunk) => {
    const part = onData === undefined ? chunk : chunk.subarray(0, onData(pipe, chunk))
    pipe.passed += part.length
    return part
  })
  return pipe
}

function relay(pipe: Pipe, from: Socket, to: Socket, filter: (chunk: Buffer) => Buffer): void {
  // In order, also when the delay becomes shorter.
  const queue: { readonly at: number; readonly act: () => void }[] = []
  const runDue = () => {
    for (let first = queue[0]; first !== undefined; first = queue[0]) {
      const leftMs = first.at - performance.now()
      if (leftMs > 0.5) return void setTimeout(runDue, leftMs)
      queue.shift()
      if (!pipe.swallowing) first.act()
    }
  }
  const later = (act: () => void) => {
    const delayMs = from === pipe.server ? pipe.delayMs : 0
    queue.push({ at: performance.now() + delayMs, act })
    if (queue.length === 1) runDue()
  }
  from.on('data', (chunk: Buffer) => {
    if (pipe.swallowing) return
    const part = filter(chunk)
    if (part.length === 0) return
    later(() => {
      if (to.destroyed || to.write(part) || from.isPaused()) return
      from.pause()
      to.once('drain', () => from.resume())
    })
  })
  from.once('end', () => later(() => void to.end()))
  from.once('error', () => later(() => void to.resetAndDestroy()))
  from.once('close', (hadError) => {
    if (!hadError) later(() => void setTimeout(() => void to.destroy(), 1_000).unref())
  })
}

export type Listening = { readonly port: number; readonly pipes: ReadonlySet<Pipe>; close(): void }

export async function listen(
  accept: (client: Socket, keep: (pipe: Pipe) => void) => void,
): Promise<Listening> {
  const pipes = new Set<Pipe>()
  const clients = new Set<Socket>()
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    clients.add(client)
    client.on('error', () => undefined).once('close', () => clients.delete(client))
    accept(client, (pipe) => {
      pipes.add(pipe)
      // A swallowed connection stays open at the other end, as behind a middlebox that forgot it.
      pipe.server.once('close', () => pipes.delete(pipe))
      pipe.client.once('close', () => {
        if (pipe.swallowing) setTimeout(() => void pipe.server.resetAndDestroy(), 20_000).unref()
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    pipes,
    close() {
      server.close()
      for (const client of clients) client.destroy()
      for (const pipe of pipes) pipe.server.destroy()
    },
  }
}

export function connectTo(port: number): Socket {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  return socket.on('error', () => undefined)
}
