import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { until } from '../support/http.ts'

/**
 * What Node says of the ends of a connection, as docs/adr/0003-delivery-evidence.md has it: the hand-over of
 * automatic acknowledgements rests on it. A bare server; the gateway's own behaviour is tested in delivery.test.ts.
 */
const request = 'PATCH / HTTP/1.1\r\nHost: x\r\n\r\n'
const large = 8 * 1024 * 1024
const undo: (() => void)[] = []
afterEach(() => {
  for (const step of undo.splice(0)) step()
})

async function serve() {
  const seen: string[] = []
  let arrived: (res: ServerResponse) => void
  const response = new Promise<ServerResponse>((resolve) => (arrived = resolve))
  const server = createServer((req, res) => {
    req.socket.on('end', () => seen.push('end'))
    req.socket.on('error', (error: NodeJS.ErrnoException) => seen.push(error.code ?? 'error'))
    req.socket.on('close', (hadError) => seen.push(hadError ? 'close with error' : 'close'))
    res.on('finish', () => seen.push('finish'))
    arrived(res)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  undo.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const answer = async (bytes = 100) => {
    const res = await response
    res.writeHead(200, { 'Content-Length': bytes })
    res.end(Buffer.alloc(bytes, 'x'))
  }
  const saw = (...events: string[]) => until(() => expect(seen).toEqual(events))
  return { port: (server.address() as AddressInfo).port, response, answer, saw }
}

async function client(port: number, { reading = true } = {}): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => undefined)
  undo.push(() => socket.destroy())
  await once(socket, 'connect')
  if (reading) socket.resume()
  else socket.pause()
  socket.write(request)
  return socket
}

/** A process, so that what it has not read is in the hands of the operating system when it is killed. */
function clientProcess(port: number, { reading }: { reading: boolean }) {
  const code = `const s = require('net').connect(${port}, '127.0.0.1')
    s.${reading ? 'resume' : 'pause'}(); s.write(${JSON.stringify(request)}); setInterval(() => {}, 1000)
    s.on('data', () => console.log('read'))`.replace(reading ? '' : /s\.on\('data'.*$/, '')
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  undo.push(() => child.kill('SIGKILL'))
  return child
}

describe('an answer that was read', () => {
  test('then a FIN: ends without an error', async () => {
    const { port, answer, saw } = await serve()
    const socket = await client(port)
    const read = once(socket, 'data')
    await answer()
    await read
    socket.end()
    await saw('finish', 'end', 'close')
  })
  test('then a reset: closes with an error, although it was read', async () => {
    const { port, answer, saw } = await serve()
    const socket = await client(port)
    const read = once(socket, 'data')
    await answer()
    await read
    socket.resetAndDestroy()
    await saw('finish', 'ECONNRESET', 'close with error')
  })
  test('by a process that is killed then: ends without an error', async () => {
    const { port, answer, saw } = await serve()
    const child = clientProcess(port, { reading: true })
    await answer()
    await once(child.stdout, 'data')
    child.kill('SIGKILL')
    await saw('finish', 'end', 'close')
  })
})

describe('an answer that nobody has read', () => {
  test('of a process that is killed: finished, then closes with an error', async () => {
    const { port, answer, saw } = await serve()
    const child = clientProcess(port, { reading: false })
    await answer()
    await saw('finish')
    child.kill('SIGKILL')
    await saw('finish', 'ECONNRESET', 'close with error')
  })
  test('of a process that is stopped: finished, and nothing tells it from one that was read', async () => {
    const { port, response, answer, saw } = await serve()
    const child = clientProcess(port, { reading: true })
    await response
    child.kill('SIGSTOP')
    await answer()
    await saw('finish')
  })
  test('since a proxy swallowed it: finished, and nothing tells it from one that was read', async () => {
    const { port, answer, saw } = await serve()
    // It reads what comes, and passes nothing on.
    await client(port)
    await answer()
    await saw('finish')
  })
  test('as it is more than the buffers hold: finished only when a reset throws the rest away', async () => {
    const { port, answer, saw } = await serve()
    const socket = await client(port, { reading: false })
    await answer(large)
    await saw()
    socket.resetAndDestroy()
    await saw('ECONNRESET', 'finish', 'close with error')
  })
  test('after a FIN, as it is more than the buffers hold: not finished', async () => {
    const { port, answer, saw } = await serve()
    const socket = await client(port, { reading: false })
    await answer(large)
    socket.end()
    await saw('end')
  })
})

describe('a client that leaves before it is answered', () => {
  test.each(['end', 'destroy'] as const)('by %s: its end is seen, and nothing finishes', async (leave) => {
    const { port, response, answer, saw } = await serve()
    const socket = await client(port)
    await response
    socket[leave]()
    await saw('end', 'close')
    await answer()
    await saw('end', 'close')
  })
  test('by a reset: closes with an error', async () => {
    const { port, response, answer, saw } = await serve()
    const socket = await client(port)
    await response
    socket.resetAndDestroy()
    await saw('ECONNRESET', 'close with error')
    await answer()
    await saw('ECONNRESET', 'close with error')
  })
})
