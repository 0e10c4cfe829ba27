import { expect, test } from 'vitest'
import { coalesce } from '../../src/db/coalesce.ts'
import type { Coalescing } from '../../src/db/coalesce.ts'
import { idle } from '../support/fake-clock.ts'

/** Batches as they were run; each waits for the test to end it. */
function setUp(options?: Coalescing<number>) {
  const batches: { items: readonly number[]; end: (error?: Error) => void }[] = []
  const call = coalesce(
    (items: readonly number[]) =>
      new Promise<string[]>((resolve, reject) => {
        const end = (error?: Error) => (error ? reject(error) : resolve(items.map((item) => `of ${item}`)))
        batches.push({ items, end })
      }),
    options,
  )
  const end = async (index: number, error?: Error) => {
    batches[index]?.end(error)
    await idle()
  }
  const ran = () => batches.map(({ items }) => items)
  return { batches, ran, call, end }
}

test('a lone call runs in its own turn; those of one turn share a batch, those that come meanwhile the next', async () => {
  const { ran, call, end } = setUp()
  const answers = [call(1)]
  await Promise.resolve()
  expect(ran()).toEqual([[1]])
  answers.push(call(2))
  await idle()
  answers.push(call(3))
  await idle()
  expect(ran()).toEqual([[1]])
  await end(0)
  expect(ran()).toEqual([[1], [2, 3]])
  await end(1)
  answers.push(call(4), call(5))
  await idle()
  expect(ran()).toEqual([[1], [2, 3], [4, 5]])
  await end(2)
  expect(await Promise.all(answers)).toEqual(['of 1', 'of 2', 'of 3', 'of 4', 'of 5'])
})

test('a batch that fails fails its own calls, and the next one runs', async () => {
  const { call, end } = setUp()
  const one = call(1)
  await idle()
  const two = call(2)
  const failed = expect(one).rejects.toThrow('away')
  await end(0, new Error('away'))
  await failed
  await end(1)
  expect(await two).toBe('of 2')
})

test('an item that is refused fails its own call alone; an outage is not tried again for each', async () => {
  const runs: (readonly string[])[] = []
  const call = coalesce(
    (items: readonly string[]) => {
      runs.push(items)
      const bad = items.find((item) => item !== 'good')
      return bad === undefined ? Promise.resolve(items) : Promise.reject(new Error(bad))
    },
    { isOfOneItem: (error) => error instanceof Error && error.message === 'refused' },
  )
  const settle = (...items: string[]) => Promise.allSettled(items.map((item) => call(item)))
  const outcomes = await settle('good', 'good', 'refused', 'good')
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])
  expect(runs).toEqual([
    ['good', 'good', 'refused', 'good'],
    ['good', 'good'],
    ['refused', 'good'],
    ['refused'],
    ['good'],
  ])
  await idle()
  runs.length = 0
  await settle('good', 'away', 'good')
  expect(runs).toEqual([['good', 'away', 'good']])
})

test.each([{ bad: [0] }, { bad: [317] }, { bad: [499] }, { bad: [100, 400] }])(
  'a batch of 500 with the bad items $bad is halved: few statements, and every good call succeeds',
  async ({ bad }) => {
    const runs: (readonly number[])[] = []
    const call = coalesce(
      (items: readonly number[]) => {
        runs.push(items)
        const refused = items.some((item) => bad.includes(item))
        return refused ? Promise.reject(new Error('refused')) : Promise.resolve(items)
      },
      { isOfOneItem: () => true },
    )
    const outcomes = await Promise.allSettled(Array.from({ length: 500 }, (_, n) => call(n)))
    outcomes.forEach((outcome, item) => {
      const expected = bad.includes(item) ? { status: 'rejected' } : { status: 'fulfilled', value: item }
      expect(outcome).toMatchObject(expected)
    })
    expect(runs[0]).toHaveLength(500)
    expect(runs.length).toBeLessThanOrEqual(1 + bad.length * 2 * Math.ceil(Math.log2(500)))
  },
)

test('a batch has a ceiling', async () => {
  const { batches, call, end } = setUp()
  const answers = Array.from({ length: 702 }, (_, n) => call(n))
  await idle()
  for (let index = 0; index < 2; index += 1) await end(index)
  expect(batches.map(({ items }) => items.length)).toEqual([500, 202])
  expect((await Promise.all(answers)).at(-1)).toBe('of 701')
})

test('the ceiling is in what items weigh; one that weighs more alone runs alone, and none is overtaken', async () => {
  const { ran, call, end } = setUp({ batchMax: 10, weigh: (item) => item })
  const answers = [4, 6, 1, 25, 3, 8, 2].map((item) => call(item))
  await idle()
  for (let index = 0; index < 5; index += 1) await end(index)
  expect(ran()).toEqual([[4, 6], [1], [25], [3], [8, 2]])
  expect(await Promise.all(answers)).toHaveLength(7)
})

test('so many batches are under way at once, and no more', async () => {
  const { ran, call, end } = setUp({ concurrency: 2 })
  const answers = [call(1)]
  await idle()
  answers.push(call(2), call(3))
  await idle()
  expect(ran()).toEqual([[1], [2, 3]])
  answers.push(call(4))
  await idle()
  answers.push(call(5))
  await idle()
  expect(ran()).toHaveLength(2)
  await end(1)
  expect(ran()).toEqual([[1], [2, 3], [4, 5]])
  answers.push(call(6))
  await idle()
  expect(ran()).toHaveLength(3)
  for (const index of [0, 2]) await end(index)
  await end(3)
  expect(await Promise.all(answers)).toEqual([1, 2, 3, 4, 5, 6].map((item) => `of ${item}`))
})

test('a batch that answers for too few rejects rather than mixing answers up', async () => {
  const call = coalesce((items: readonly number[]) => Promise.resolve(items.slice(1)))
  await expect(call(1)).rejects.toThrow('0 results for 1 items')
})
