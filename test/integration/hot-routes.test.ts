import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { useGateway } from '../support/gateway.ts'
import { jobOf } from '../support/http.ts'
import type { Answer, RequestOptions } from '../support/http.ts'

// A hot route is matched ahead of express. With a slash at the end the same request is left to express: the answers
// must not differ.

const database = useDatabase()
const gateway = useGateway(database)
const noOne = '00000000-0000-4000-8000-000000000000'

type Shown = { status: number; headers: Record<string, string>; text: string }

function shown({ status, headers, text }: Answer): Shown {
  const own = new Set(['date', 'x-request-id'])
  return { status, headers: Object.fromEntries([...headers].filter(([name]) => !own.has(name))), text }
}

async function bothWays(method: string, url: string, options: RequestOptions = {}): Promise<Shown> {
  const [path = '', query] = url.split('?')
  const tail = query === undefined ? '' : `?${query}`
  const hot = shown(await gateway.request(method, `${path}${tail}`, options))
  const cold = shown(await gateway.request(method, `${path}/${tail}`, options))
  expect(hot, `${method} ${url}`).toEqual(cold)
  expect(hot.headers['cache-control']).toBe('no-store')
  return hot
}

test('pulls', async () => {
  const path = `/subscriptions/${await gateway.subscribe('hot')}`
  const ended = `/subscriptions/${await gateway.subscribe('hot')}`
  await gateway.request('DELETE', ended)
  const headers = { 'Content-Type': 'text/plain' }
  const complete = [{ id: '1', lease: noOne }]
  const cases: [string, number, RequestOptions?][] = [
    [`${path}?wait=0`, 204],
    [`${path}?wait=0&max=5`, 204],
    [path, 204, { headers: { Prefer: 'wait=0' } }],
    [`${path}?wait=0`, 204, { text: '', headers }],
    [`${path}?wait=0`, 204, { json: {} }],
    [`${path}?max=1`, 200, { json: { complete } }],
    [`${path}?wait=x`, 400],
    [`${path}?wait=1&wait=1`, 400],
    [`${path}?limit=1`, 400],
    [`${path}?wait=0`, 400, { json: { complete } }],
    [`${path}?wait=0`, 400, { json: [] }],
    [`${path}?wait=0`, 400, { text: '{' }],
    [path, 403, { headers: { Origin: 'http://evil.example' } }],
    [`/subscriptions/${noOne}`, 404],
    ['/subscriptions/x', 404],
    [ended, 410],
    [path, 413, { text: `"${'x'.repeat(2_100_000)}"` }],
    [path, 415, { text: '{}', headers }],
    [path, 415, { text: '{}', headers: { 'Content-Encoding': 'gzip' } }],
  ]
  for (const [url, status, options] of cases) {
    expect((await bothWays('PATCH', url, options)).status, url).toBe(status)
  }
})

test('settles', async () => {
  const subscription = await gateway.subscribe('hot-settles')
  await publish(database, 'hot-settles')
  const job = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const json = { lease: job.lease }
  const path = `/jobs/${job.id}`
  const cases: [string, number, RequestOptions?][] = [
    [`${path}/complete`, 400],
    [`${path}/complete`, 400, { json: { lease: 'x' } }],
    [`${path}/complete?wait=1`, 400, { json }],
    [`${path}/fail`, 400, { json }],
    [`${path}/heartbeat`, 409, { json: { lease: noOne } }],
    ['/jobs/999999999/release', 404, { json }],
    ['/jobs/99999999999999999999/complete', 404, { json }],
    ['/jobs/x/complete', 404, { json }],
    [`${path}/complete`, 200, { json: { ...json, result: { answer: 42 } } }],
  ]
  for (const [url, status, options] of cases) {
    expect((await bothWays('POST', url, options)).status, url).toBe(status)
  }
  expect(await gateway.job(job.id)).toMatchObject({ state: 'succeeded', result: { answer: 42 } })
  for (const verb of ['complete', 'heartbeat', 'fail', 'release']) {
    const refused = await bothWays('GET', `${path}/${verb}`)
    expect([refused.status, refused.headers.allow]).toEqual([405, 'POST'])
  }
})

test('ids of requests and counts', async () => {
  const subscription = await gateway.subscribe('hot-counts')
  const counted = () =>
    gateway.metric('pullgate_http_requests_total', {
      route: '/subscriptions/{id}',
      ...{ method: 'PATCH', code: '204' },
    })
  const before = await counted()
  for (const slash of ['', '/']) {
    const pull = (headers?: Record<string, string>) =>
      gateway.request('PATCH', `/subscriptions/${subscription}${slash}?wait=0`, headers && { headers })
    const given = await pull({ 'X-Request-Id': 'Given-1.x:y' })
    expect(given.headers.get('x-request-id')).toBe('Given-1.x:y')
    const ids = [await pull(), await pull({ 'X-Request-Id': 'a b' })].map(({ headers }) =>
      headers.get('x-request-id'),
    )
    for (const one of ids) expect(one).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/)
    expect(new Set(ids).size).toBe(2)
  }
  expect(await counted()).toBe(before + 6)
})
