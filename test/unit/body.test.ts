import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { text as textOf } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hasBody, readJson } from '../../src/http/body.ts'
import type { GatewayError } from '../../src/domain/errors.ts'
import { problemHeaders, problemOf, asGatewayError } from '../../src/http/problem.ts'
import { until } from '../support/http.ts'

const limit = 1_000
let server: Server
let port: number
const failures: GatewayError[] = []

beforeAll(async () => {
  const answer = async (req: IncomingMessage, res: ServerResponse) => {
    try {
      const json = hasBody(req) ? await readJson(req, limit) : undefined
      res.end(JSON.stringify(json === undefined ? 'no body' : { text: json.text }))
    } catch (error) {
      const known = asGatewayError(error)
      failures.push(known)
      res.writeHead(known.status, problemHeaders(known)).end(JSON.stringify(problemOf(known)))
    }
  }
  server = createServer((req, res) => void answer(req, res)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  ;({ port } = server.address() as AddressInfo)
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})

type Reply = {
  status: number
  headers: Headers
  body: { text?: string; code?: string; detail?: string } | string
}

async function send(
  body: string | Uint8Array<ArrayBuffer> | undefined,
  headers: Record<string, string> = {},
  method = 'PATCH',
): Promise<Reply> {
  const response = await fetch(`http://127.0.0.1:${port}/`, {
    method,
    headers,
    ...(body === undefined ? {} : { body }),
  })
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Reply['body'],
  }
}

const json = { 'Content-Type': 'application/json' }

describe('no body', () => {
  test.each([
    {},
    json,
    { 'Content-Type': 'application/x-www-form-urlencoded' },
    { 'Content-Type': 'nonsense' },
  ])('is zero bytes, whatever the type: %j', async (headers) => {
    expect(await send('', headers)).toMatchObject({ status: 200, body: 'no body' })
    expect(await send(undefined, headers)).toMatchObject({ status: 200, body: 'no body' })
  })
})

test.each(['{"a":1}', ' {"a" : 12345678901234567890.0} \n', '"é\\u0000\\ud800"', '[]', '0'])(
  'the text comes out byte for byte: %s',
  async (text) => {
    expect(await send(text, json)).toMatchObject({ status: 200, body: { text } })
  },
)

describe('types', () => {
  test.each([
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json;charset="UTF-8"',
    'application/json; x=y',
  ])('%s is JSON', async (type) => {
    expect((await send('1', { 'Content-Type': type })).status).toBe(200)
  })

  test.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'application/merge-patch+json',
    'application/json; charset=latin1',
    'application/jsonx',
    'x',
  ])('%s is refused, and what is taken is named', async (type) => {
    const patch = await send('1', { 'Content-Type': type })
    expect(patch).toMatchObject({ status: 415, body: { code: 'unsupported-media-type' } })
    expect(patch.headers.get('accept-patch')).toBe('application/json')
    expect((await send('1', { 'Content-Type': type }, 'POST')).headers.get('accept')).toBe('application/json')
  })

  test('an encoding is refused', async () => {
    expect(await send('1', { ...json, 'Content-Encoding': 'gzip' })).toMatchObject({
      status: 415,
      body: { code: 'unsupported-media-type' },
    })
  })
})

describe('a body that is not valid', () => {
  test.each([
    '{',
    'SeCrEt',
    '{"a":SeCrEt}',
    '{"a":1}x',
    "{'a':1}",
    '[1,]',
    '\ufeff{}',
    'NaN',
    ' ',
    '{"a":"\n"}',
  ])('is refused without being quoted: %j', async (text) => {
    const { status, body } = await send(text, json)
    expect([status, body]).toMatchObject([
      400,
      { code: 'invalid-request', detail: 'the body is not valid JSON' },
    ])
    expect(JSON.stringify(body)).not.toContain('SeCrEt')
  })

  test('is refused for its encoding', async () => {
    const latin1 = Uint8Array.from(Buffer.from('"é"', 'latin1'))
    expect(await send(latin1, json)).toMatchObject({
      status: 400,
      body: { detail: 'the body is not valid UTF-8' },
    })
  })
})

describe('the limit', () => {
  const ofBytes = (bytes: number) => `"${'x'.repeat(bytes - 2)}"`

  test('itself is taken, a byte more is refused', async () => {
    expect((await send(ofBytes(limit), json)).status).toBe(200)
    const { status, headers, body } = await send(ofBytes(limit + 1), json)
    expect([status, headers.get('connection')]).toEqual([413, 'close'])
    expect(body).toMatchObject({
      code: 'body-too-large',
      detail: expect.stringContaining('1000 bytes') as string,
    })
  })

  test('counts for a body without Content-Length as well', async () => {
    const socket = connect(port, '127.0.0.1')
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n')
    socket.write(`${(limit + 1).toString(16)}\r\n${'x'.repeat(limit + 1)}\r\n0\r\n\r\n`)
    expect(await textOf(socket)).toMatch(/^HTTP\/1\.1 413 /)
  })
})

describe('chunked', () => {
  test.each([
    ['0\r\n\r\n', 'no body'],
    ['1\r\n[\r\n1\r\n]\r\n0\r\n\r\n', '{"text":"[]"}'],
  ])('%j is %s', async (chunks, answer) => {
    const socket = connect(port, '127.0.0.1')
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n')
    socket.write(`Transfer-Encoding: chunked\r\n\r\n${chunks}`)
    expect(await textOf(socket)).toContain(answer)
  })
})

test('a body that the connection cuts off ends the wait for it', async () => {
  failures.length = 0
  const socket = connect(port, '127.0.0.1')
  socket.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{')
  await once(server, 'request')
  socket.destroy()
  await until(() => expect(failures.map(({ code }) => code)).toEqual(['invalid-request']))
})
