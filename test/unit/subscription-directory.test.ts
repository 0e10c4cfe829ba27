import { expect, test } from 'vitest'
import { createSubscriptionDirectory } from '../../src/dispatch/subscription-directory.ts'
import type { SubscriptionUse } from '../../src/domain/ports.ts'
import { idle } from '../support/fake-clock.ts'
import { fakeCall, subscription } from '../support/fake-job-store.ts'

const use = (id: string, endedAt: Date | null = null): SubscriptionUse => ({
  ...subscription(id, ['a'], { endedAt }),
  jobsHeld: 0,
})

function setUp() {
  const store = {
    read: fakeCall<[string], SubscriptionUse | undefined>(),
    touch: fakeCall<[readonly string[]], undefined>(),
  }
  return { store, directory: createSubscriptionDirectory(store) }
}

test('concurrent look-ups of one id are one statement, and a later one none', async () => {
  const { store, directory } = setUp()
  const found = [directory.find('s'), directory.find('s'), directory.find('s')]
  expect(store.read.open.map(({ args }) => args)).toEqual([['s']])
  store.read.next().resolve(use('s'))
  expect((await Promise.all(found)).map((one) => one?.id)).toEqual(['s', 's', 's'])
  expect(await directory.find('s')).toMatchObject({ id: 's' })
  expect(store.read.total()).toBe(1)
})

test('one that ended is returned and not kept', async () => {
  const { store, directory } = setUp()
  const found = directory.find('s')
  store.read.next().resolve(use('s', new Date(0)))
  expect((await found)?.endedAt).toEqual(new Date(0))
  void directory.find('s')
  expect(store.read.total()).toBe(2)
})

test('one that does not exist is not kept', async () => {
  const { store, directory } = setUp()
  const found = directory.find('s')
  store.read.next().resolve(undefined)
  expect(await found).toBeUndefined()
  void directory.find('s')
  expect(store.read.total()).toBe(2)
})

test('a look-up that failed is not kept', async () => {
  const { store, directory } = setUp()
  const found = [directory.find('s'), directory.find('s')]
  store.read.next().reject(new Error('no database'))
  expect((await Promise.allSettled(found)).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  const again = directory.find('s')
  store.read.next().resolve(use('s'))
  expect(await again).toMatchObject({ id: 's' })
})

test('one that is forgotten is looked up anew', async () => {
  const { store, directory } = setUp()
  const found = directory.find('s')
  store.read.next().resolve(use('s'))
  await found
  directory.forget(['s', 'unknown'])
  void directory.find('s')
  expect(store.read.total()).toBe(2)
})

test('50,000 are kept; the oldest makes room', async () => {
  const read: string[] = []
  const directory = createSubscriptionDirectory({
    read: (id) => (read.push(id), Promise.resolve(use(id))),
    touch: () => Promise.resolve(),
  })
  for (let n = 0; n < 50_000; n += 1) await directory.find(`s${n}`)
  await directory.find('s0')
  expect(read).toHaveLength(50_000)
  await directory.find('one more')
  await directory.find('s1')
  expect(read).toHaveLength(50_001)
  await directory.find('s0')
  expect(read).toHaveLength(50_002)
})

test('flush writes down each that was used since the last, and only those that exist', async () => {
  const { store, directory } = setUp()
  const found = ['s', 't', 'unknown'].map((id) => directory.find(id))
  store.read.next().resolve(use('s'))
  store.read.next().resolve(use('t'))
  store.read.next().resolve(undefined)
  await Promise.all(found)
  await directory.find('s')
  void directory.flush()
  expect(store.touch.next().args).toEqual([['s', 't']])
  store.touch.next().resolve(undefined)
  await idle()
  await directory.flush()
  expect(store.touch.total()).toBe(1)
  await directory.find('t')
  void directory.flush()
  expect(store.touch.next().args).toEqual([['t']])
})
