import { expect, test } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { tellEnds } from '../../src/db/ended-jobs.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { idle } from '../support/fake-clock.ts'
import { fakeCall } from '../support/fake-job-store.ts'

const settle = { name: 'settle', text: '' }

/** `end` runs a statement that has ended a job of each topic; the test answers the look-ups of names. */
function setUp() {
  const lookUp = fakeCall<[string], { name: string }[]>()
  const events: GatewayEvent[] = []
  const query = (statement: { name: string }, [value]: readonly unknown[]) =>
    statement === settle ? Promise.resolve([{ ended_jobs: value }]) : lookUp(String(value))
  const database = tellEnds({ query } as unknown as Database, (event) => void events.push(event))
  const end = async (...topics: string[]) => {
    await database.query(settle, [`succeeded ${topics.join(' ')};`])
    await idle()
  }
  const told = () => events.map((event) => (event.type === 'jobs ended' ? event.topic : event.type))
  return { lookUp, end, told }
}

test('ends of an unknown topic that come together share one look-up of its name', async () => {
  const { lookUp, end, told } = setUp()
  await end('7')
  await end('7')
  expect(lookUp.total()).toBe(1)
  lookUp.next().resolve([{ name: 'seven' }])
  await idle()
  await end('7')
  expect(told()).toEqual(['seven', 'seven', 'seven'])
  expect(lookUp.total()).toBe(1)
})

test.each(['fails', 'finds nothing'])('a look-up that %s is made again at the next end', async (how) => {
  const { lookUp, end, told } = setUp()
  await end('7')
  if (how === 'fails') lookUp.next().reject(new Error('away'))
  else lookUp.next().resolve([])
  await idle()
  await end('7')
  lookUp.next().resolve([{ name: 'seven' }])
  await idle()
  expect(told()).toEqual(['_other', 'seven'])
})

test('beyond 10,000 topics only the oldest name is forgotten', async () => {
  const { lookUp, end } = setUp()
  for (let topic = 0; topic <= 10_000; topic += 1) {
    await end(String(topic))
    lookUp.next().resolve([{ name: 'a' }])
    await idle()
  }
  await end('1')
  await end('10000')
  expect(lookUp.total()).toBe(10_001)
  await end('0')
  expect(lookUp.total()).toBe(10_002)
})
