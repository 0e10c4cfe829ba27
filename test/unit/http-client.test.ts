import { getEventListeners, once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { Executor } from '../../src/cli/demo/executor.ts'
import { apiOf } from '../support/http.ts'

// fetch leaves listeners on the signal that it is given: a thousand pulls with one signal end in MaxListenersExceededWarning.

/** Answers every pull with a job, unless it is held. */
async function serve(held = false): Promise<string> {
  const server = createServer((_request, response) => {
    if (!held) response.end('{"id":"1","attempt":1}')
  }).listen(0, '127.0.0.1')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

test("the tests' client leaves no listener on the signal of its requests", async () => {
  const { pull } = apiOf(await serve())
  const { signal } = new AbortController()
  for (let n = 0; n < 20; n += 1) await pull('s', { signal })
  expect(getEventListeners(signal, 'abort')).toEqual([])
})

test('an executor of the demo leaves none, and its signal ends the pull that is open', async () => {
  const stop = new AbortController()
  const pulling = new Executor(await serve(), 's', stop.signal)
  let pulls = 0
  await pulling.run(() => {
    if ((pulls += 1) === 20) stop.abort()
    return Promise.resolve()
  })
  expect(getEventListeners(stop.signal, 'abort')).toEqual([])
  const other = new AbortController()
  const held = new Executor(await serve(true), 's', other.signal).run(() => Promise.resolve())
  other.abort()
  await held
  expect(getEventListeners(other.signal, 'abort')).toEqual([])
})
