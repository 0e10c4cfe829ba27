import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/**
 * Hands the sessions of a server to its clients for one transaction each, as PgBouncer does with pool_mode=transaction:
 * what a session has prepared or listens to is the next client's. Each login brings a session; the one that has been
 * idle the longest is next.
 */
export type TransactionPooler = {
  /** `url` with the pooler's address in place of the server's. */
  readonly url: string
  /** Whether sessions are shared. While not, each client keeps the one it has. */
  shared: boolean
  /** Notifications that came for a session that nobody had. */
  readonly lost: number
}

type Session = { readonly socket: Socket; client: Socket | undefined }

export async function transactionPooler(url: string): Promise<TransactionPooler> {
  const target = new URL(url)
  const sockets = new Set<Socket>()
  const idle: Session[] = []
  const own = new URL(url)
  const pooler = { url: '', shared: true, lost: 0 }

  function track(socket: Socket): void {
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  }

  const server = createServer((client) => {
    track(client)
    const socket = connect({ host: target.hostname, port: Number(target.port) })
    track(socket)
    const first: Session = { socket, client }
    let session: Session | undefined = first
    let loggedIn = false

    const fromServer = framesOf((type, message) => {
      // Poolers make up the process id, as they have no one process.
      if (type === 'K') message.writeInt32BE(-1, 5)
      if (type === 'A' && first.client === undefined) pooler.lost += 1
      first.client?.write(message)
      // Ready for a query, and in no transaction.
      if (type !== 'Z' || message[5] !== 'I'.charCodeAt(0)) return
      loggedIn = true
      if (!pooler.shared) return
      first.client?.emit('unlinked')
      first.client = undefined
      idle.push(first)
    })
    const fromClient = framesOf((type, message) => {
      if (type === 'X') return void client.end()
      session ??= idle.shift()
      if (session === undefined) throw new Error('there are as many sessions as clients')
      session.client = client
      session.socket.write(message)
    })
    client.on('unlinked', () => (session = undefined))
    client.on('data', (chunk) => {
      if (loggedIn) fromClient(chunk)
      else socket.write(chunk)
    })
    client.once('close', () => {
      if (session !== undefined) session.socket.destroy()
    })
    socket.on('data', fromServer)
    socket.once('close', () => {
      if (idle.includes(first)) idle.splice(idle.indexOf(first), 1)
      first.client?.destroy()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  own.hostname = '127.0.0.1'
  own.port = String((server.address() as AddressInfo).port)
  pooler.url = own.href
  return pooler
}

/** Cuts a stream of the protocol into its messages: a letter, a length, the rest. */
function framesOf(onMessage: (type: string, message: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 5) {
      const length = 1 + rest.readInt32BE(1)
      if (rest.length < length) return
      const message = rest.subarray(0, length)
      rest = rest.subarray(length)
      onMessage(String.fromCharCode(message[0] ?? 0), message)
    }
  }
}
