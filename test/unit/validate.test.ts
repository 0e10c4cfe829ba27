import { describe, expect, test } from 'vitest'
import type { z } from 'zod'
import { GatewayError } from '../../src/domain/errors.ts'
import { validate } from '../../src/http/route.ts'
import * as schemas from '../../src/http/schemas.ts'

const secret = 'SeCrEt-42'

function refusal(schema: z.ZodType, value: unknown): GatewayError {
  try {
    validate(schema, 'body', value)
  } catch (error) {
    if (error instanceof GatewayError) return error
    throw error
  }
  throw new Error('it was not refused')
}

const fieldsOf = (error: GatewayError) => (error.details.fields ?? []).map(({ field }) => field)

const { subscribeBody, publishBody, pullBody, failBody, heartbeatBody, releaseBody, pullQuery, cancelBody } =
  schemas
const lease = '0193a7f0-0000-7000-8000-00000000000a'

describe('every field that is wrong is named, and no value is repeated', () => {
  test.each([
    [
      subscribeBody,
      { topic: secret + '/', ack: secret, leaseSeconds: secret, name: 7 },
      ['topic', 'ack', 'name', 'leaseSeconds'],
    ],
    [subscribeBody, { topics: ['ok', secret + '!'], maxParked: secret }, ['topics.1', 'maxParked']],
    [subscribeBody, { topic: 'a', topics: ['b'] }, ['topic']],
    [subscribeBody, {}, ['topic']],
    [subscribeBody, { topics: [] }, ['topics']],
    [subscribeBody, { topics: ['a', 'a'] }, ['topics']],
    [
      publishBody,
      {
        jobSpec: secret,
        runAt: secret,
        delaySeconds: secret,
        priority: 1.5,
        onLost: secret,
        maxAttempts: 0,
        expiresAt: secret,
        dedupeKey: '',
        traceparent: 3,
      },
      ['runAt', 'delaySeconds', 'priority', 'onLost', 'maxAttempts', 'expiresAt', 'dedupeKey', 'traceparent'],
    ],
    [
      pullBody,
      {
        complete: [
          { id: '1', lease },
          { id: secret, lease: secret },
        ],
        fail: [{ id: '2' }],
        release: secret,
      },
      ['complete.1.id', 'complete.1.lease', 'fail.0.error', 'release'],
    ],
    [
      failBody,
      { lease: secret, error: {}, retry: secret, retryAfterSeconds: -1 },
      ['lease', 'error', 'retry', 'retryAfterSeconds'],
    ],
    [heartbeatBody, { leaseSeconds: 9 }, ['lease', 'leaseSeconds']],
    [releaseBody, [secret], ['body']],
    [releaseBody, secret, ['body']],
    [cancelBody, null, ['body']],
    [pullQuery, { wait: secret, max: '101' }, ['wait', 'max']],
    [pullQuery, { wait: ['1', '2'] }, ['wait']],
    [subscribeBody, { topic: 'a', [secret]: secret, other: 1 }, [secret, 'other']],
    [pullBody, { heartbeat: [{ id: '1', lease, more: secret }] }, ['heartbeat.0.more']],
  ] as [z.ZodType, unknown, string[]][])('case %#', (schema, value, fields) => {
    const error = refusal(schema, value)
    expect(error.code).toBe('invalid-request')
    expect(fieldsOf(error).toSorted()).toEqual(fields.toSorted())
    const named = fields.includes(secret)
    const said = JSON.stringify([
      error.message,
      error.details.detail,
      error.details.fields?.map(({ message }) => message),
    ])
    expect(said.replaceAll(named ? `${secret}: ` : '', '')).not.toContain(secret)
    for (const { field } of error.details.fields ?? []) expect(error.message).toContain(field)
  })
})

test.each([
  [subscribeBody, { topic: 'a', leaseSeconds: 60 }, ['leaseSeconds']],
  [subscribeBody, { topic: 'a', offerSeconds: 15 }, ['offerSeconds']],
  [failBody, { lease, error: '', retry: false, retryAfterSeconds: 1 }, ['retryAfterSeconds']],
  [failBody, { error: '', retry: true, retryAfterSeconds: 1 }, ['retry', 'retryAfterSeconds']],
  [pullBody, { fail: [{ id: '1', error: '', retryAfterSeconds: 0 }] }, ['fail.0.retryAfterSeconds']],
  [
    pullBody,
    { fail: [{ id: '1', lease, error: '', retry: false, retryAfterSeconds: 0 }] },
    ['fail.0.retryAfterSeconds'],
  ],
] as [z.ZodType, unknown, string[]][])(
  'an option that would have no effect is refused: case %#',
  (schema, value, fields) => {
    expect(fieldsOf(refusal(schema, value))).toEqual(fields)
  },
)

test('what is missing is said to be missing', () => {
  const { details } = refusal(releaseBody, {})
  expect(details.fields).toEqual([{ field: 'lease', message: 'is missing' }])
})

test('the message for a wrong instant or lease says how a right one looks', () => {
  expect(refusal(publishBody, { jobSpec: 1, runAt: '2026-12-01T00:00:00' }).details.fields).toEqual([
    { field: 'runAt', message: 'must be an instant with Z or an offset, such as 2026-12-01T00:00:00Z' },
  ])
  expect(refusal(releaseBody, { lease: 'x' }).details.fields).toEqual([
    { field: 'lease', message: 'must be the lease that the job came with' },
  ])
})

test('an unknown field is refused, also one that JavaScript knows', () => {
  for (const name of ['__proto__', 'constructor', 'toString', 'x']) {
    const body: unknown = JSON.parse(`{"jobSpec":1,"${name}":{}}`)
    expect(fieldsOf(refusal(publishBody, body))).toEqual([name])
  }
})

test('an answer stays small, however much is wrong', () => {
  const many = refusal(subscribeBody, { topics: Array.from({ length: 100_000 }, () => '/') })
  expect(JSON.stringify(many.details).length).toBeLessThan(20_000)
  const lists = {
    complete: Array.from({ length: 100_000 }, () => 1),
    fail: Array.from({ length: 100 }, () => 1),
  }
  expect(JSON.stringify(refusal(pullBody, lists).details).length).toBeLessThan(40_000)
  const long = refusal(subscribeBody, { topic: 'a', ['k'.repeat(1_000_000)]: 1 })
  expect(JSON.stringify(long.details).length).toBeLessThan(20_000)
  const unknown = Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`key ${n}`, 1]))
  expect(JSON.stringify(refusal(subscribeBody, { topic: 'a', ...unknown }).details).length).toBeLessThan(
    20_000,
  )
})

test('what is right comes out with its defaults', () => {
  expect(validate(subscribeBody, 'body', { topic: 'a' })).toEqual({
    topic: 'a',
    ack: 'auto',
  })
  expect(validate(pullBody, 'body', {})).toEqual({ complete: [], fail: [], release: [], heartbeat: [] })
  expect(validate(pullQuery, 'query', { wait: '0', max: '100' })).toEqual({ wait: 0, max: 100 })
  expect(validate(schemas.endQuery, 'query', { release: '' })).toEqual({ release: true })
})
