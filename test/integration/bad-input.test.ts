import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { openRaw } from '../support/http-raw.ts'
import { expectProblem, jobOf } from '../support/http.ts'
import type { Answer, RequestOptions } from '../support/http.ts'
import { useGatewayProcess } from '../support/process.ts'

const database = useDatabase()
const gateway = useGatewayProcess(database, { PULLGATE_LOG_LEVEL: 'debug' })

/** Part of every body and job spec here; no error and no log line may repeat it. */
const secret = 'SECRET-5f0c9a'
const noOne = '00000000-0000-4000-8000-000000000000'
const texts: string[] = []

async function request(method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
  const answer = await gateway().request(method, path, options)
  if (answer.status >= 400) texts.push(answer.text)
  return answer
}

/** A 400 that names the fields, and nothing else. */
async function refusedFor(
  fields: readonly string[],
  method: string,
  path: string,
  json?: unknown,
): Promise<void> {
  const answer = await request(method, path, json === undefined ? {} : { json })
  expectProblem(answer, 400, 'invalid-request')
  const errors = (answer.body.errors ?? []) as { field: string; message: string }[]
  expect(errors.map(({ field }) => field)).toEqual(fields)
  for (const { field, message } of errors) {
    expect(answer.body.detail).toContain(field)
    expect(message).not.toBe('')
  }
}

test('a subscription that does not exist is 404, whatever its id looks like', async () => {
  for (const id of [noOne, 'x', '%20', "'; drop schema pullgate", '1', 'a'.repeat(3000)]) {
    for (const method of ['GET', 'PATCH', 'DELETE']) {
      const answer = await request(method, `/subscriptions/${encodeURIComponent(id)}`)
      expectProblem(answer, 404, 'subscription-not-found')
    }
  }
})

test('a deleted subscription is 410', async () => {
  const subscription = await gateway().subscribe('deleted')
  await request('DELETE', `/subscriptions/${subscription}`)
  expectProblem(await request('PATCH', `/subscriptions/${subscription}`), 410, 'subscription-ended')
  const upper = subscription.toUpperCase()
  expectProblem(await request('PATCH', `/subscriptions/${upper}`), 410, 'subscription-ended')
  expect((await request('GET', `/subscriptions/${subscription}`)).body.endedAt).toEqual(expect.any(String))
})

test('what is no JSON object is 400', async () => {
  const bodies = [
    '{',
    `{"topic":"${secret}"`,
    `{topic:'${secret}'}`,
    `"${secret}"`,
    '[]',
    'null',
    '\ufeff{}',
    '01',
  ]
  for (const text of bodies) {
    expectProblem(await request('POST', '/subscriptions', { text }), 400, 'invalid-request')
    expectProblem(await request('PATCH', `/subscriptions/${noOne}?max=1`, { text }), 400, 'invalid-request')
  }
  expectProblem(await request('POST', '/subscriptions'), 400, 'invalid-request')
})

test('invalid UTF-8 is 400', async () => {
  const text = Buffer.concat([
    Buffer.from(`{"jobSpec":"${secret} `),
    Buffer.from([0xc3, 0x28, 0xff]),
    Buffer.from('"}'),
  ])
  const answer = await request('POST', '/topics/utf8/jobs', { text: new Uint8Array(text) })
  expectProblem(answer, 400, 'invalid-request')
  expect(answer.body.detail).toContain('UTF-8')
})

test('each wrong, missing or unknown field is named', async () => {
  await refusedFor(['topic'], 'POST', '/subscriptions', {})
  await refusedFor(['topic'], 'POST', '/subscriptions', { topic: secret, topics: [secret] })
  await refusedFor(['topic'], 'POST', '/subscriptions', { topic: 7 })
  await refusedFor(['topics'], 'POST', '/subscriptions', { topics: ['a', 'a'] })
  await refusedFor(['topics.1'], 'POST', '/subscriptions', { topics: ['a', `${secret} `] })
  await refusedFor(['ack', 'leaseSeconds', 'maxParked'], 'POST', '/subscriptions', {
    ...{ topic: 'a', ack: secret, leaseSeconds: 9, maxParked: 0.5 },
  })
  await refusedFor(['colour', 'size'], 'POST', '/subscriptions', { topic: 'a', colour: secret, size: 1 })
  for (const topic of ['', ' ', 'a/b', '-a', 'ä', 'a'.repeat(201), `${secret}\n`]) {
    await refusedFor(['topic'], 'POST', '/subscriptions', { topic })
  }
  await refusedFor(['priority', 'onLost'], 'POST', '/topics/a/jobs', {
    jobSpec: 1,
    priority: 11,
    onLost: secret,
  })
  await refusedFor(['runAt'], 'POST', '/topics/a/jobs', { jobSpec: 1, runAt: `tomorrow ${secret}` })
  await refusedFor(['delaySeconds'], 'POST', '/topics/a/jobs', {
    ...{ jobSpec: secret, delaySeconds: 1, runAt: '2100-01-01T00:00:00Z' },
  })
  await refusedFor(['jobSpec'], 'POST', '/topics/a/jobs', { priority: 1 })
  await refusedFor(['topic'], 'POST', '/topics/a%2Fb/jobs', { jobSpec: secret })
  await refusedFor(['lease'], 'POST', '/jobs/1/heartbeat', {})
  await refusedFor(['lease'], 'POST', '/jobs/1/complete', { lease: secret, result: secret })
  await refusedFor(['error'], 'POST', '/jobs/1/fail', { lease: noOne })
  await refusedFor(['delaySeconds'], 'POST', '/jobs/1/release', { lease: noOne, delaySeconds: -1 })
})

test('wait and max of a pull are strict, and settles need max', async () => {
  const path = `/subscriptions/${await gateway().subscribe('strict')}`
  for (const wait of ['-1', '1000000000', '3601', '1.5', '1e1', '', ' 1', 'x']) {
    await refusedFor(['wait'], 'PATCH', `${path}?wait=${wait}`)
  }
  await refusedFor(['wait'], 'PATCH', `${path}?wait=1&wait=2`)
  for (const max of ['0', '101', '-1', 'x', '1e1'])
    await refusedFor(['max'], 'PATCH', `${path}?max=${max}&wait=0`)
  await refusedFor(['limit'], 'PATCH', `${path}?limit=1`)
  await refusedFor(['max'], 'PATCH', `${path}?wait=0`, { complete: [{ id: '1', lease: noOne }] })
  await refusedFor(['complete.0.id', 'complete.0.why'], 'PATCH', `${path}?max=1`, {
    complete: [{ id: 'x', lease: noOne, why: secret }],
  })
})

test('what is invalid in Prefer is ignored', async () => {
  const topic = 'prefer'
  const subscription = await gateway().subscribe(topic)
  for (const prefer of [
    'wait=-1',
    'wait=x',
    'wait',
    'wait=',
    ';;,=',
    'wait=1.5',
    `respond-async, ${secret}`,
  ]) {
    await publish(database, topic)
    const answer = await gateway().pull(subscription, { headers: { Prefer: prefer } })
    jobOf(answer)
    expect(answer.headers.get('preference-applied')).toBeNull()
  }
  const counted = await gateway().pull(subscription, { headers: { Prefer: 'respond-async, WAIT="0"; x=1' } })
  expect([counted.status, counted.headers.get('preference-applied')]).toEqual([204, 'wait=0'])
  const beaten = await gateway().pull(subscription, { wait: 0, headers: { Prefer: 'wait=50' } })
  expect([beaten.status, beaten.headers.get('preference-applied')]).toEqual([204, null])
})

test('a body over the limit is 413, with Content-Length and without', async () => {
  const big = `{"jobSpec":"${secret}${'x'.repeat(2_100_000)}"}`
  expectProblem(await request('POST', '/topics/big/jobs', { text: big }), 413, 'body-too-large')
  const client = await openRaw(gateway().url)
  const head = 'POST /topics/big/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
  client.send(`${head}Transfer-Encoding: chunked\r\n\r\n`)
  const chunk = `${(100_000).toString(16)}\r\n${'x'.repeat(100_000)}\r\n`
  for (let sent = 0; sent < 22; sent += 1) client.send(chunk)
  client.send('0\r\n\r\n')
  await client.until(/^HTTP\/1\.1 413 [^]*connection: close[^]*"code":"body-too-large"/i)
})

test('a job spec over its limit is 413 with a code of its own', async () => {
  await database.query('select pullgate.configure(job_spec_max_bytes => 1024)')
  try {
    const json = { jobSpec: secret.repeat(100) }
    expectProblem(await request('POST', '/topics/spec/jobs', { json }), 413, 'job-spec-too-large')
  } finally {
    await database.query('select pullgate.configure(job_spec_max_bytes => 1048576)')
  }
})

test('a body of another type is 415 and says what would do; zero bytes are no body', async () => {
  const subscription = await gateway().subscribe('types')
  const form = { 'Content-Type': 'application/x-www-form-urlencoded' }
  for (const type of [form['Content-Type'], 'text/plain', 'application/json; charset=latin1', 'garbage']) {
    const options = { text: `{"x":"${secret}"}`, headers: { 'Content-Type': type } }
    const patch = await request('PATCH', `/subscriptions/${subscription}`, options)
    expectProblem(patch, 415, 'unsupported-media-type')
    expect(patch.headers.get('accept-patch')).toBe('application/json')
    const post = await request('POST', '/subscriptions', options)
    expectProblem(post, 415, 'unsupported-media-type')
    expect(post.headers.get('accept')).toBe('application/json')
  }
  const zipped = { text: secret, headers: { 'Content-Encoding': 'gzip' } }
  expectProblem(await request('POST', '/subscriptions', zipped), 415, 'unsupported-media-type')
  const empty = await request('PATCH', `/subscriptions/${subscription}?wait=0`, { text: '', headers: form })
  expect(empty.status).toBe(204)
  const typed = {
    text: '{"topic":"types"}',
    headers: { 'Content-Type': 'Application/JSON ; charset="UTF-8"' },
  }
  expect((await request('POST', '/subscriptions', typed)).status).toBe(200)
})

test('a request that a browser sends for a page of another origin is refused', async () => {
  const { host } = new URL(gateway().url)
  for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1:1']) {
    const answer = await request('POST', '/jobs/1/cancel', { headers: { Origin: origin } })
    expectProblem(answer, 403, 'foreign-origin')
  }
  const own = await request('POST', '/jobs/999999/cancel', { headers: { Origin: `http://${host}` } })
  expectProblem(own, 404, 'job-not-found')
})

test('a method that a path does not take is 405 with Allow, an unknown path 404', async () => {
  for (const [method, path, allow] of [
    ['PUT', '/subscriptions', 'POST, GET'],
    ['POST', `/subscriptions/${noOne}`, 'GET, DELETE, PATCH'],
    ['GET', '/jobs/1/complete', 'POST'],
    ['DELETE', '/topics/a', 'GET'],
    ['OPTIONS', '/jobs/1', 'GET'],
  ] as const) {
    const answer = await request(method, path)
    expectProblem(answer, 405, 'method-not-allowed')
    const allowed = (answer.headers.get('allow') ?? '').split(', ').sort()
    expect(allowed).toEqual(allow.split(', ').sort())
  }
  for (const path of [
    '/',
    '/nothing',
    '/jobs',
    '/subscriptions/a/b',
    '/%',
    '/%E0%A4%A',
    '/jobs/%ff',
    '/topics/%C3',
  ]) {
    expectProblem(await request('GET', path), 404, 'route-not-found')
  }
  const undecodable = await request('POST', '/topics/%zz/jobs', { json: { jobSpec: 1 } })
  expect(undecodable.body.detail).toBe('the path cannot be decoded: write % as %25')
  await refusedFor(['topic'], 'GET', '/topics/%00')
  const body = { json: { x: secret } }
  expectProblem(await request('POST', '/jobs/1/retry', body), 400, 'invalid-request')
})

test('deeply nested JSON is taken, or refused as the client’s mistake where Postgres cannot check it', async () => {
  for (const depth of [20_000, 500_000]) {
    const deep = `${'['.repeat(depth)}"${secret}"${']'.repeat(depth)}`
    const answers = [
      await request('POST', '/topics/deep/jobs', { text: `{"jobSpec":${deep}}` }),
      await request('POST', '/jobs/1/complete', { text: `{"lease":"${noOne}","result":${deep}}` }),
      await request('POST', '/subscriptions', { text: deep }),
    ]
    for (const answer of answers) {
      if (answer.status === 201) continue
      expect([400, 404, 409, 413], answer.text.slice(0, 300)).toContain(answer.status)
      expectProblem(answer, answer.status, String(answer.body.code))
    }
  }
})

test('values that Postgres cannot store are refused as the client’s mistake', async () => {
  const nul = `\u0000 ${secret}`
  const subscription = await gateway().subscribe('nul')
  await publish(database, 'nul')
  const job = jobOf(await gateway().pull(subscription, { wait: 50 }))
  const attempts: [string, unknown][] = [
    ['/subscriptions', { topic: 'nul', name: nul }],
    ['/topics/nul/jobs', { jobSpec: 1, dedupeKey: nul }],
    ['/topics/nul/jobs', { jobSpec: 1, traceparent: nul }],
    ['/topics/nul/jobs', { jobSpec: 1, runAt: '0000-01-01T00:00:00Z' }],
    [`/jobs/${job.id}/cancel`, { reason: nul }],
    [`/jobs/${job.id}/fail`, { lease: job.lease, error: nul }],
  ]
  const statuses = []
  for (const [path, json] of attempts) statuses.push((await request('POST', path, { json })).status)
  expect(statuses).toEqual(attempts.map(() => 400))
})

test('nothing of a body, a job spec or a lease is in any error or log line', async () => {
  const subscription = await gateway().subscribe('secrets', { name: `name-${secret}` })
  await publish(database, 'secrets', { spec: JSON.stringify(secret), dedupe_key: secret })
  const job = jobOf(await gateway().pull(subscription, { wait: 50 }))
  await gateway().settle(job, 'heartbeat', { progress: secret })
  await gateway().settle(job, 'fail', { error: secret, retry: false })
  const stale = await gateway().settle(job, 'release')
  expectProblem(stale, 409, 'lease-lost')
  await gateway().printed(/"verb":"release"/)
  const everything = [...texts, stale.text, gateway().output]
  expect(texts.length).toBeGreaterThan(50)
  expect(gateway().output).toContain('"event":"request"')
  for (const text of everything) {
    expect(text).not.toContain(secret)
    expect(text).not.toContain(job.lease)
  }
})
