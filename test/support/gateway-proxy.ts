import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/** A TCP proxy in front of a server that can turn into a black hole, where connections stay open and carry nothing. */
export type BlackHoleProxy = {
  /** `url` with the proxy's address in place of the server's. */
  readonly url: string
  /** From now on, and until `restore`, nothing passes; also not on connections opened meanwhile. */
  swallow(): void
  /** From now on, and until `restore`, nothing comes back: what is asked passes, and is done. */
  mute(): void
  /**
   * What comes back on a connection waits from the moment that it says `text`, until the function returned is called.
   * `held` tells how many wait.
   */
  hold(text: string): () => void
  readonly held: number
  /** Ends every connection, and each new one at once, until `restore`. */
  cut(): void
  /** New connections lead to another server: a changed address behind the same URL. */
  redirect(url: string): void
  /** Resets every connection that is open. */
  reset(): void
  /** New connections pass again; those that were swallowed stay dead. */
  restore(): void
  /** Connections opened so far. */
  readonly accepted: number
  /** Connections open now. */
  readonly open: number
}

export async function blackHoleProxy(url: string): Promise<BlackHoleProxy> {
  let target = new URL(url)
  const sockets = new Set<Socket>()
  const clients = new Set<Socket>()
  let swallowing = false
  let cutting = false
  let muted = false
  let holding: string | undefined
  const held = new Map<Socket, Buffer[]>()
  let accepted = 0
  const track = (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  }
  const server = createServer((client) => {
    accepted += 1
    track(client)
    clients.add(client)
    client.once('close', () => clients.delete(client))
    if (cutting) {
      client.destroy()
      return
    }
    if (swallowing) {
      // Read, so that the client's own end is seen, but never answered.
      client.resume()
      return
    }
    const upstream = connect({ host: target.hostname, port: Number(target.port) })
    track(upstream)
    const dead = () => swallowing || swallowed.has(client)
    client.on('data', (chunk) => {
      if (holding !== undefined && chunk.includes(holding) && !held.has(client)) held.set(client, [])
      if (!dead()) upstream.write(chunk)
    })
    upstream.on('data', (chunk) => {
      const kept = held.get(client)
      if (kept !== undefined) kept.push(chunk)
      else if (!dead() && !muted) client.write(chunk)
    })
    client.once('close', () => upstream.destroy())
    upstream.once('close', () => {
      if (!dead()) client.destroy()
    })
  })
  const swallowed = new WeakSet<Socket>()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const own = new URL(url)
  own.hostname = '127.0.0.1'
  own.port = String((server.address() as AddressInfo).port)
  return {
    url: own.href,
    swallow() {
      swallowing = true
      for (const client of clients) swallowed.add(client)
    },
    mute() {
      muted = true
    },
    hold(text) {
      holding = text
      return () => {
        holding = undefined
        for (const [client, chunks] of held) for (const chunk of chunks) client.write(chunk)
        held.clear()
      }
    },
    get held() {
      return held.size
    },
    cut() {
      cutting = true
      for (const socket of sockets) socket.destroy()
    },
    redirect(other) {
      target = new URL(other)
    },
    reset() {
      for (const client of clients) client.resetAndDestroy()
    },
    restore() {
      cutting = false
      muted = false
      for (const client of clients) swallowed.add(client)
      swallowing = false
    },
    get accepted() {
      return accepted
    },
    get open() {
      return clients.size
    },
  }
}
