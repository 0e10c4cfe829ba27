import { expect, test } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { createReplayStore } from '../../src/db/replay-store.ts'
import { GatewayError } from '../../src/domain/errors.ts'
import { job, subscription } from '../support/fake-job-store.ts'

const s = subscription('s', ['a'])
type Query = { readonly keys: readonly string[]; readonly counts: readonly number[] }

function storeWith(answer: (query: Query) => object[]) {
  const queries: Query[] = []
  const query = (_statement: unknown, [keys, counts]: [string[], number[]]) => {
    queries.push({ keys, counts })
    return new Promise((resolve) => resolve(answer({ keys, counts })))
  }
  return { queries, store: createReplayStore({ query } as unknown as Database) }
}

const row = (pull: number, id: string) => ({
  ...{
    pull,
    id,
    topic_id: 'a',
    lease: `lease of ${id}`,
    lease_seconds: 60,
    hold_seconds: 12.5,
    offered: true,
  },
  ...{ lease_ends_at: job('1').leaseEndsAt, published_at: job('1').publishedAt, job_spec: '{}' },
  ...{ attempt: 1, redelivered: false, traceparent: null },
})

test('look-ups of one turn are one statement, and each gets what is its own', async () => {
  const { store, queries } = storeWith(() => [row(1, '7'), row(3, '8'), row(3, '9')])
  const answers = await Promise.all([1, 2, 5].map((max) => store.giveAgain(`key ${max}`, s, max)))
  expect(queries).toEqual([{ keys: ['key 1', 'key 2', 'key 5'], counts: [1, 2, 5] }])
  expect(answers.map((jobs) => jobs.map(({ id }) => id))).toEqual([['7'], [], ['8', '9']])
  expect(answers[0]).toEqual([{ ...job('7'), holdSeconds: 12.5, offered: true, readySeconds: 0 }])
})

test('a job that somebody has locked holds up its own key alone', async () => {
  const { store } = storeWith(({ keys }) => {
    if (keys.includes('locked')) throw new GatewayError('invalid-request')
    return [row(1, '7')]
  })
  const answers = await Promise.allSettled(['free', 'locked'].map((key) => store.giveAgain(key, s, 1)))
  expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
})
