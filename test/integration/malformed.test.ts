import { describe, expect, test } from 'vitest'
import { errorTable } from '../../src/domain/errors.ts'
import type { ErrorCode } from '../../src/domain/errors.ts'
import { refusalOf } from '../../src/http/problem.ts'
import { useDatabase } from '../support/database.ts'
import { noBackstop, useGateway } from '../support/gateway.ts'
import { openRaw } from '../support/http-raw.ts'
import { until } from '../support/http.ts'

// Requests that no route is asked about: byte by byte, since no HTTP client would send them.

const database = useDatabase()
const bodyMaxBytes = 2048
const gateway = useGateway(database, {
  ...noBackstop,
  PULLGATE_ADMIN_PORT: 0,
  PULLGATE_BODY_MAX_BYTES: bodyMaxBytes,
})

const head = (line: string, ...headers: string[]) => [line, 'Host: x', ...headers, '', ''].join('\r\n')
const publish = 'POST /topics/t/jobs HTTP/1.1'
const json = 'Content-Type: application/json'
const chunked = 'Transfer-Encoding: chunked'

type Refused = readonly (readonly [what: string, request: string, code: ErrorCode])[]

const heads: Refused = [
  ['no HTTP at all', 'nonsense\r\n\r\n', 'invalid-request'],
  ['TLS', '\x16\x03\x01\x02\x00\x01\x00', 'invalid-request'],
  ['an unknown method', head('BREW /pot HTTP/1.1'), 'invalid-request'],
  ['a space in the name of a header', head('GET /livez HTTP/1.1', 'X Y: 1'), 'invalid-request'],
  ['two lengths', head(publish, json, 'Content-Length: 2', chunked), 'invalid-request'],
  ['no Host', 'GET /livez HTTP/1.1\r\n\r\n', 'invalid-request'],
  ['a long header', head('GET /livez HTTP/1.1', `X-Y: ${'a'.repeat(20_000)}`), 'headers-too-large'],
  ['a long path', head(`GET /${'a'.repeat(20_000)} HTTP/1.1`), 'headers-too-large'],
  ['an expectation', head(publish, json, 'Expect: tea', 'Content-Length: 2'), 'expectation-failed'],
  ['a tunnel', 'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n', 'method-not-allowed'],
]

const bodies: Refused = [
  ['a chunk without a length', `${head(publish, json, chunked)}x\r\n`, 'invalid-request'],
  ['long chunk extensions', `${head(publish, json, chunked)}1;${'a'.repeat(20_000)}`, 'body-too-large'],
  [
    'a long body that waits to be asked for',
    head(publish, json, 'Expect: 100-continue', `Content-Length: ${bodyMaxBytes + 1}`),
    'body-too-large',
  ],
]

describe.each([
  ['url', [...heads, ...bodies]],
  ['adminUrl', heads],
] as const)('on the port of %s', (port, refused) => {
  test.each(refused)('%s is answered with a problem', async (_what, request, code) => {
    const client = await openRaw(gateway[port])
    client.send(request)
    const [, status, headers = '', body = ''] = await client.until(
      /^HTTP\/1\.1 (\d+) [^\r]+\r\n([^]*?)\r\n\r\n(\{[^]*\})$/,
    )
    expect(JSON.parse(body)).toMatchObject({ code, type: `urn:pullgate:error:${code}` })
    expect(Number(status)).toBe(errorTable[code].status)
    expect(headers).toMatch(/^Content-Type: application\/problem\+json/im)
    expect(headers).toContain(`Content-Length: ${Buffer.byteLength(body)}`)
    if (/^Connection: close/im.test(headers)) await client.closed
  })
})

test('what took too long to arrive is answered with a problem', () => {
  const { code, details } = refusalOf(Object.assign(new Error(), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }))
  expect([code, details.headers]).toEqual(['request-timeout', { Connection: 'close' }])
})

test('after 417 the connection ends: the next request is not taken for the body that was announced', async () => {
  const client = await openRaw(gateway.url)
  client.send(head(publish, json, 'Expect: foo', 'Content-Length: 60'))
  const [, headers] = await client.until(/^HTTP\/1\.1 417 [^\r]+\r\n([^]*?)\r\n\r\n\{[^]*\}$/)
  expect(headers).toMatch(/^Connection: close/im)
  client.send(head('GET /readyz HTTP/1.1'))
  await client.closed
})

test('a body within the limit is asked for, and taken', async () => {
  const client = await openRaw(gateway.url)
  const body = '{"jobSpec":1}'
  client.send(head(publish, json, 'Expect: 100-continue', `Content-Length: ${body.length}`))
  await client.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/)
  client.send(body)
  await client.until(/HTTP\/1\.1 201 /)
})

test('what is malformed behind a parked pull is not taken for its answer: the connection ends', async () => {
  const subscription = await gateway.subscribe('malformed')
  const client = await openRaw(gateway.url)
  client.pull(subscription, '?wait=50')
  await gateway.parked(1)
  client.send('nonsense\r\n\r\n')
  await client.closed
  expect(client.received).toBe('')
  await until(async () =>
    expect(await gateway.metric('pullgate_pulls_total', { outcome: 'aborted' })).toBe(1),
  )
})
