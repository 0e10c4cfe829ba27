import { expect, test } from 'vitest'
import { coalesce } from '../../src/db/coalesce.ts'
import { idle } from '../support/fake-clock.ts'

/** Batches as they were run; each waits for the test to end it. */
function setUp() {
  const batches: { items: readonly number[]; end: (error?: Error) => void }[] = []
  const call = coalesce(
    (items: readonly number[]) =>
      new Promise<string[]>((resolve, reject) => {
        const end = (error?: Error) => (error ? reject(error) : resolve(items.map((item) => `of ${item}`)))
        batches.push({ items, end })
      }),
  )
  const end = async (index: number, error?: Error) => {
    batches[index]?.end(error)
    await idle()
  }
  return { batches, call, end }
}

test('a lone call runs at once; those that come meanwhile share the next batch', async () => {
  const { batches, call, end } = setUp()
  const answers = [call(1), call(2), call(3)]
  expect(batches.map(({ items }) => items)).toEqual([[1]])
  await end(0)
  expect(batches.map(({ items }) => items)).toEqual([[1], [2, 3]])
  await end(1)
  expect(await Promise.all(answers)).toEqual(['of 1', 'of 2', 'of 3'])
  void call(4)
  expect(batches[2]?.items).toEqual([4])
})

test('a batch that fails fails its own calls, and the next one runs', async () => {
  const { call, end } = setUp()
  const [one, two] = [call(1), call(2)]
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
    (error) => error instanceof Error && error.message === 'refused',
  )
  const settle = (...items: string[]) => Promise.allSettled(items.map((item) => call(item)))
  const outcomes = await settle('good', 'good', 'refused', 'good')
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])
  expect(runs).toEqual([['good'], ['good', 'refused', 'good'], ['good'], ['refused'], ['good']])
  await idle()
  runs.length = 0
  await settle('good', 'away', 'good')
  expect(runs).toEqual([['good'], ['away', 'good']])
})

test('a batch has a ceiling', async () => {
  const { batches, call, end } = setUp()
  const answers = Array.from({ length: 702 }, (_, n) => call(n))
  for (let index = 0; index < 3; index += 1) await end(index)
  expect(batches.map(({ items }) => items.length)).toEqual([1, 500, 201])
  expect((await Promise.all(answers)).at(-1)).toBe('of 701')
})

test('a batch that answers for too few rejects rather than mixing answers up', async () => {
  const call = coalesce((items: readonly number[]) => Promise.resolve(items.slice(1)))
  await expect(call(1)).rejects.toThrow('0 results for 1 items')
})
