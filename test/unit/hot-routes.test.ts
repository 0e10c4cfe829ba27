import { describe, expect, test } from 'vitest'
import { createHotRoutes } from '../../src/http/hot-routes.ts'
import { defineRoute } from '../../src/http/route.ts'
import { noQuery } from '../../src/http/schemas.ts'
import { apiRoutes } from '../../src/http/server.ts'
import type { Services } from '../../src/http/services.ts'

// Making the routes asks nothing of the services.
const routes = apiRoutes({} as Services)
const find = createHotRoutes(routes)

const found = (method: string, url: string) => {
  const match = find(method, url)
  return match && { path: match.route.path, params: { ...match.params }, query: { ...match.query } }
}
const id = '0193a7f0-0000-7000-8000-00000000000a'
const pull = { path: '/subscriptions/{id}', params: { id } }

test('the pull and the settles by lease are hot, and nothing else', () => {
  expect(routes.filter(({ hot }) => hot).map(({ method, path }) => `${method} ${path}`)).toEqual([
    'patch /subscriptions/{id}',
    'post /jobs/{id}/heartbeat',
    'post /jobs/{id}/complete',
    'post /jobs/{id}/fail',
    'post /jobs/{id}/release',
  ])
})

test.each([
  ['PATCH', `/subscriptions/${id}`, { ...pull, query: {} }],
  ['PATCH', `/subscriptions/${id}?`, { ...pull, query: {} }],
  ['PATCH', `/subscriptions/${id}?wait=5&max=10`, { ...pull, query: { wait: '5', max: '10' } }],
  ['PATCH', `/subscriptions/${id}?wait=1&wait=2`, { ...pull, query: { wait: ['1', '2'] } }],
  ['PATCH', `/subscriptions/${id}?wait`, { ...pull, query: { wait: '' } }],
  ['POST', '/jobs/12/complete', { path: '/jobs/{id}/complete', params: { id: '12' }, query: {} }],
  ['POST', '/jobs/x-1/fail?a=-1.5', { path: '/jobs/{id}/fail', params: { id: 'x-1' }, query: { a: '-1.5' } }],
])('%s %s is found', (method, url, expected) => {
  expect(found(method, url)).toEqual(expected)
})

describe('is for express to match', () => {
  test.each([
    ['GET', `/subscriptions/${id}`],
    ['DELETE', `/subscriptions/${id}`],
    ['patch', `/subscriptions/${id}`],
    ['GET', '/jobs/1/complete'],
    ['POST', '/jobs/1/cancel'],
    ['POST', '/jobs/1'],
    ['POST', '/topics/a/jobs'],
    ['POST', '/jobs/complete'],
    ['POST', '/jobs/{id}/complete'],
    ['POST', '/toString/1/complete'],
  ])('what is not hot: %s %s', (method, url) => {
    expect(found(method, url)).toBeUndefined()
  })

  test.each([
    `/subscriptions/${id}/`,
    `//subscriptions/${id}`,
    `/subscriptions//${id}`,
    `/Subscriptions/${id}`,
    '/subscriptions/%30',
    '/subscriptions/',
    '/subscriptions/a/b/c',
    `/subscriptions/${id}#wait`,
    `/subscriptions/${id}?wait=1#x`,
    `/subscriptions/${id}?w%61it=1`,
    `/subscriptions/${id}?wait=+1`,
    `/subscriptions/${id}\n`,
    `http://x/subscriptions/${id}`,
    '*',
    '',
  ])('what is not written plainly: %j', (url) => {
    expect(found('PATCH', url)).toBeUndefined()
  })
})

test('a path of another form cannot be hot', () => {
  const routeAt = (path: string, hot: boolean) =>
    defineRoute({
      ...{ method: 'get', path, hot, summary: '', query: noQuery, responses: {} },
      handle: () => Promise.resolve(undefined),
    })
  for (const path of ['/topics/{topic}', '/jobs', '/jobs/{id}/a/b', '/{id}']) {
    expect(() => createHotRoutes([routeAt(path, false)])).not.toThrow()
    expect(() => createHotRoutes([routeAt(path, true)])).toThrow('cannot be a hot route')
  }
})
