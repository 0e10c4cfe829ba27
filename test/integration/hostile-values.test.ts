import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import type { Answer } from '../support/http.ts'
import { jobOf } from '../support/http.ts'
import { useGateway } from '../support/gateway.ts'

// Every field, query parameter, header and path parameter of the API, with values that JavaScript, JSON or Postgres
// treat in odd ways. None may end in a 5xx, and each 400 names the field.
const database = useDatabase()
const gateway = useGateway(database)

const noOne = '00000000-0000-4000-8000-000000000000'
const unstorable = ['\ud800', 'a\udc00b', '\ud800\ud800', 'a\u0000b']
const instants = [
  ...['0000-01-01T00:00:00Z', '2100-02-30T00:00:00Z', '2100-01-01T24:00:00Z', '2100-06-30T23:59:60Z'],
  ...['2100-01-01T00:00:00+15:59', '2100-01-01T00:00:00+16:00', '2100-01-01T00:00:00-18:00'],
  ...['2100-01-01T00:00:00+23:59', '0001-01-01T00:00:00+15:00', '9999-12-31T23:59:59-15:00'],
  ...['9999-12-31T23:59:59.9999999Z', '10000-01-01T00:00:00Z', '12345-01-01T00:00:00Z', '2100-01-01T00:00Z'],
  ...[
    `2100-01-01T00:00:00.${'1'.repeat(500)}Z`,
    'infinity',
    '-infinity',
    'now',
    'epoch',
    '2100-01-01 00:00:00Z',
  ],
]
const numbers = [-1, -0, 0.5, 1e-320, 2 ** 31, 2 ** 53, 1e308, 12]
const texts = ['', ' ', '\u{1f600}'.repeat(600), 'x'.repeat(20_000), '9223372036854775808', '0'.repeat(30)]
const others = [null, true, [], ['\ud800'], {}, { a: '\u0000' }]
const values: readonly unknown[] = [...unstorable, ...instants, ...numbers, ...texts, ...others]

type Body = Readonly<Record<string, unknown>>
const held = { lease: noOne }
const settles = {
  complete: { ...held, result: 1 },
  fail: { ...held, error: 'no', retry: true, retryAfterSeconds: 1 },
  release: { ...held, delaySeconds: 1 },
  heartbeat: { ...held, leaseSeconds: 60, progress: 1 },
}
/** A valid body of every route that takes one, with all its fields but those that exclude each other. */
const bodies: Readonly<Record<string, Body>> = {
  'post /subscriptions': {
    ...{ topic: 'hostile', ack: 'explicit', name: 'n', leaseSeconds: 60, offerSeconds: 15, maxParked: 5 },
  },
  'patch /subscriptions/{id}': {},
  ...Object.fromEntries(Object.entries(settles).map(([verb, body]) => [`post /jobs/{id}/${verb}`, body])),
  'post /jobs/{id}/cancel': { reason: 'why' },
  'post /topics/{topic}/jobs': {
    ...{ jobSpec: 1, priority: 1, dedupeKey: 'k', maxAttempts: 3, onLost: 'fail', traceparent: 't' },
    ...{ runAt: '2100-01-01T00:00:00Z', expiresAt: '2100-01-02T00:00:00Z' },
  },
}
/** Fields that the bodies above leave out, and what each of them stands in for. */
const insteadOf: Readonly<Record<string, string>> = { topics: 'topic', delaySeconds: 'runAt' }

type Attempt = {
  readonly method: string
  readonly path: string
  readonly json: unknown
  readonly field: string
}
const withValue = (body: Body, field: string, value: unknown): Body => {
  const { [insteadOf[field] ?? '']: _, ...rest } = body
  return { ...(field in body ? body : rest), [field]: value }
}

function* attemptsOf(route: string, fields: readonly string[]): Generator<Attempt> {
  const [method = '', template = ''] = route.split(' ')
  const path = template.replace('{topic}', 'hostile')
  for (const value of values) {
    for (const field of fields) {
      if (!(field in settles) || method !== 'patch') {
        const json = withValue(bodies[route] ?? {}, field, value)
        yield { method, path: path.replace('{id}', '1'), json, field }
        continue
      }
      const settle: Body = { id: '1', ...settles[field as keyof typeof settles] }
      for (const inner of Object.keys(settle)) {
        yield {
          method,
          path: `${path}?max=1&wait=0`,
          json: { [field]: [{ ...settle, [inner]: value }] },
          field,
        }
      }
      yield { method, path: `${path}?max=1&wait=0`, json: { [field]: value }, field }
    }
  }
}

function judge(answer: Answer, what: string, field: string): void {
  const said = `${what}: ${answer.status} ${answer.text.slice(0, 300)}`
  expect(answer.status, said).toBeLessThan(500)
  if (answer.status === 200 && Array.isArray(answer.body.settled)) {
    for (const { status } of answer.body.settled as { status: number }[])
      expect(status, said).toBeLessThan(500)
  }
  if (answer.status !== 400) return
  const errors = (answer.body.errors ?? []) as { field: string; message: string }[]
  expect(errors.length, said).toBeGreaterThan(0)
  for (const error of errors)
    expect(error.field === field || error.field.startsWith(`${field}.`), said).toBe(true)
}

test('no value of a body ends in a 5xx, and each 400 names the field', async () => {
  const description = (await gateway.request('GET', '/openapi.json')).body as unknown as {
    paths: Record<
      string,
      Record<string, { requestBody?: { content: Record<string, { schema: { $ref: string } }> } }>
    >
    components: { schemas: Record<string, { properties: object }> }
  }
  const subscription = await gateway.subscribe('hostile')
  let tried = 0
  const described = Object.entries(description.paths).flatMap(([path, item]) =>
    Object.entries(item).flatMap(([method, { requestBody }]) => {
      const name = requestBody?.content['application/json']?.schema.$ref.split('/').at(-1)
      if (name === undefined) return []
      const fields = Object.keys(description.components.schemas[name]?.properties ?? {})
      return [{ route: `${method} ${path}`, fields }]
    }),
  )
  expect(described.map(({ route }) => route).toSorted()).toEqual(Object.keys(bodies).toSorted())
  for (const { route, fields } of described) {
    await publish(database, 'hostile')
    const job = jobOf(await gateway.pull(subscription, { wait: 5 }))
    const attempts = [...attemptsOf(route, fields)]
    const send = async ({ method, path, json, field }: Attempt) => {
      const target =
        method === 'patch' ? path.replace('{id}', subscription) : path.replace('/1/', `/${job.id}/`)
      const answer = await gateway.request(method.toUpperCase(), target, { json })
      judge(answer, `${route} ${JSON.stringify(json).slice(0, 200)}`, field)
    }
    tried += attempts.length
    while (attempts.length > 0) await Promise.all(attempts.splice(0, 20).map(send))
  }
  expect(tried).toBeGreaterThan(1_000)
}, 180_000)

test.each([
  ['/subscriptions', { topic: 'a' }, 'name'],
  ['/topics/a/jobs', { jobSpec: 1 }, 'dedupeKey'],
  ['/topics/a/jobs', { jobSpec: 1 }, 'traceparent'],
  ['/jobs/1/fail', { lease: noOne }, 'error'],
  ['/jobs/1/cancel', {}, 'reason'],
])('POST %s: a text that Postgres would change is refused by name: %s %s', async (path, rest, field) => {
  for (const value of unstorable) {
    const { status, body } = await gateway.request('POST', path, { json: { ...rest, [field]: value } })
    expect([status, body.code]).toEqual([400, 'invalid-request'])
    expect(body.errors).toEqual([{ field, message: expect.stringMatching(/surrogate/) as string }])
  }
})

test('JSON with escaped surrogates and NUL is kept byte for byte, in spec, progress and result', async () => {
  const odd = '{"a":"\\ud800","b":["\\u0000"]}'
  const subscription = await gateway.subscribe('odd')
  const spec = { text: `{"jobSpec":${odd}}` }
  expect((await gateway.request('POST', '/topics/odd/jobs', spec)).status).toBe(201)
  const pulled = await gateway.pull(subscription, { wait: 5 })
  expect(pulled.text).toContain(`"jobSpec":${odd}`)
  const { id, lease } = jobOf(pulled)
  for (const [verb, member] of [
    ['heartbeat', 'progress'],
    ['complete', 'result'],
  ] as const) {
    const text = `{"lease":"${lease}","${member}":${odd}}`
    expect((await gateway.request('POST', `/jobs/${id}/${verb}`, { text })).status).toBe(200)
    expect((await gateway.request('GET', `/jobs/${id}`)).text).toContain(`"${member}":${odd}`)
  }
})

test('runAt and expiresAt: what has no place in a four-digit year is refused by name', async () => {
  const refused = [instants[0], '2100-01-01T00:00:00+18:00', '9999-12-31T23:59:59-15:00', instants.at(-6)]
  for (const field of ['runAt', 'expiresAt']) {
    for (const value of refused) {
      const json = { jobSpec: 1, [field]: value }
      const { status, body } = await gateway.request('POST', '/topics/instants/jobs', { json })
      expect(
        [status, (body.errors as { field: string }[] | undefined)?.map((one) => one.field)],
        value,
      ).toEqual([400, [field]])
    }
  }
  for (const runAt of [
    '9999-12-31T23:59:59.999Z',
    '2100-01-01T00:00:00+15:59',
    '0001-01-01T00:00:00+15:00',
  ]) {
    const answer = await gateway.request('POST', '/topics/instants/jobs', { json: { jobSpec: 1, runAt } })
    expect(answer.status, answer.text).toBe(201)
    const { dueAt } = await gateway.job(String(answer.body.id))
    expect(dueAt).toMatch(/^\d{4}-/)
  }
})

test('no query parameter, header or path parameter ends in a 5xx', async () => {
  const subscription = await gateway.subscribe('parameters')
  const odd = [
    '',
    '%00',
    '%ED%A0%80',
    '1e3',
    '-1',
    '9223372036854775808',
    'NaN',
    'x'.repeat(5_000),
    '%F0%9F%98%80',
  ]
  const headerValues = [
    '',
    ' ',
    '\u00e9',
    'a b',
    'x'.repeat(256),
    'wait=1e3',
    'wait=99999999999999999999',
    '"',
    'k',
  ]
  for (const value of odd) {
    for (const [method, path, field] of [
      ['PATCH', `/subscriptions/${subscription}?wait=0&max=${value}`, 'max'],
      ['PATCH', `/subscriptions/${subscription}?max=1&wait=${value}`, 'wait'],
      ['DELETE', `/subscriptions/${noOne}?release=${value}`, 'release'],
      ['GET', `/subscriptions/${value}`, 'id'],
      ['GET', `/jobs/${value}`, 'id'],
      ['POST', `/jobs/${value}/cancel`, 'id'],
      ['POST', `/jobs/${value}/retry`, 'id'],
      ['GET', `/topics/${value}`, 'topic'],
    ] as const) {
      judge(await gateway.request(method, path), `${method} ${path.slice(0, 100)}`, field)
    }
    const json = { jobSpec: 1 }
    judge(
      await gateway.request('POST', `/topics/${value}/jobs`, { json }),
      `publish to ${value.slice(0, 50)}`,
      'topic',
    )
  }
  for (const value of headerValues) {
    const headers = { 'Idempotency-Key': value, Prefer: value }
    const pulled = await gateway.pull(subscription, { wait: 0, headers })
    judge(pulled, `pull with ${value}`, 'Idempotency-Key')
    const published = await gateway.request('POST', '/topics/keys/jobs', { json: { jobSpec: 1 }, headers })
    judge(published, `publish with ${value}`, 'Idempotency-Key')
  }
})
