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
