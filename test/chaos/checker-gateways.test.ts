import { expect, test } from 'vitest'
import { answerOf, pullOf, spoiled } from './checker/story.ts'
import type { Entry } from './history.ts'

// One thing is wrong with a gateway.

test('I2: bytes that nobody asked for', () => {
  expect(
    spoiled(({ entries }) => entries.push({ kind: 'unasked', at: 1_500, conn: 'ca', bytes: 3 })),
  ).toEqual(['I2'])
})

const sample = {
  kind: 'sample',
  ...{ at: 9_000, gateway: 'g0', pulls: 30, parkedMetric: 30, connections: 6 },
  ...{ connectionsMax: 7, transactions: 0, sockets: 10, timers: 5, checkedOut: 0 },
} as const

test('I4: a connection or a transaction per parked pull', () => {
  const samples = (more: object) =>
    spoiled(({ entries }) => entries.push({ ...sample, when: 'parked', ...more }))
  expect(samples({})).toEqual([])
  expect(samples({ connections: 30 })).toEqual(['I4'])
  expect(samples({ transactions: 1 })).toEqual(['I4'])
})

test('leaks: pulls, sockets, timers or connections that stay when all have left', () => {
  const samples = (more: object) =>
    spoiled(({ entries }) => entries.push({ ...sample, when: 'idle', parkedMetric: 0, ...more }))
  expect(samples({})).toEqual([])
  for (const leak of [{ parkedMetric: 1 }, { sockets: 40 }, { timers: 400 }, { checkedOut: 1 }]) {
    expect(samples(leak)).toEqual(['process'])
  }
  expect(spoiled((story) => (story.sessions = 1))).toEqual(['process'])
})

test('I9: a later pull is served while an earlier one waits', () => {
  expect(
    spoiled(({ entries }) => {
      entries[0] = pullOf('a', 700)
      entries.push(pullOf('b', 100), { ...answerOf('b', 3_000), status: 204, jobs: [] } as Entry)
    }),
  ).toEqual(['I9'])
})

test('I10: a claim after the drain began', () => {
  const draining: Entry = { kind: 'draining', at: 5, gateway: 'g0', name: 'chaos/g0/1' }
  expect(spoiled(({ entries }) => entries.push(draining))).toEqual(['I10'])
  expect(spoiled(({ entries }) => entries.push({ ...draining, at: 900 }))).toEqual([])
})

test('a gateway that ends by itself, leaves uncleanly, makes a mistake, or writes what it should not', () => {
  const ended = { kind: 'ended', at: 3_000, gateway: 'g0', name: 'chaos/g0/1' } as const
  expect(spoiled(({ entries }) => entries.push({ ...ended, asked: 'no', exit: 1 }))).toEqual(['process'])
  expect(spoiled(({ entries }) => entries.push({ ...ended, asked: 'stop', exit: 1 }))).toEqual(['process'])
  expect(spoiled(({ entries }) => entries.push({ ...ended, asked: 'stop', exit: 0 }))).toEqual([])
  expect(spoiled(({ entries }) => entries.push({ kind: 'log', at: 1, gateway: 'g0', line: 'oops' }))).toEqual(
    ['process'],
  )
  expect(
    spoiled(({ entries }) => entries.push({ kind: 'mistake', at: 1, gateway: 'g0', what: 'pull: 500' })),
  ).toEqual(['answers'])
})
