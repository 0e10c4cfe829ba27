import { expect, test } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { createJobStore } from '../../src/db/job-store.ts'
import type { UnheardClaim } from '../../src/domain/ports.ts'
import { subscription } from '../support/fake-job-store.ts'

function storeOn(rows: readonly unknown[]) {
  const unheard: UnheardClaim[] = []
  const database = { query: () => Promise.resolve(rows) } as unknown as Database
  const store = createJobStore(database, {
    ...{ claimStatements: 1, gateway: () => 7, clock: { now: () => 0 } },
    onUnheard: (claim) => void unheard.push(claim),
  })
  return { store, unheard }
}
const topic = { id: 'a', name: 'jobs_a' }
const slots = [{ subscription: subscription('one'), jobs: 1 }]
const marks = { lanes: [], marks: [] }

test('a claim whose reply cannot be read counts as one that was not answered: what it took goes back', async () => {
  const { store, unheard } = storeOn([{ slot: 2, note: null, id: '1' }])
  await expect(store.claim(topic, slots, marks)).rejects.toThrow('slot 2 of 1')
  expect(unheard.map(({ subscriptions }) => subscriptions)).toEqual([['one']])
})

test('so does one with due work', async () => {
  const { store, unheard } = storeOn([{ slot: null, note: 'due', id: null, job_spec: '{' }])
  await expect(store.claimDue(1, null, topic, slots, marks)).rejects.toThrow(SyntaxError)
  expect(unheard).toHaveLength(1)
})
