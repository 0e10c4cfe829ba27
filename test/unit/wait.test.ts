import { describe, expect, test } from 'vitest'
import { waitOf } from '../../src/http/wait.ts'

const limits = { defaultSeconds: 25, maxSeconds: 55 }

describe('Prefer', () => {
  test.each([
    ['wait=10', 10],
    ['WAIT=10', 10],
    ['wait = 10', 10],
    [' wait=10 ', 10],
    ['wait=0', 0],
    ['wait=007', 7],
    ['wait="10"', 10],
    ['wait=10; foo=bar', 10],
    ['wait=10;foo="a;b"', 10],
    ['respond-async, wait=10', 10],
    ['wait=10, respond-async', 10],
    ['return=minimal; foo="some, parameter", wait=10', 10],
    ['foo="a, wait=20", wait=10', 10],
    ['foo="a \\", wait=20", wait=10', 10],
    // The same preference again counts for nothing (RFC 7240, 2).
    ['wait=10, wait=20', 10],
    ['handling=lenient, wait=10, wait=x', 10],
    // Clamped.
    ['wait=55', 55],
    ['wait=56', 55],
    ['wait=999999999', 55],
  ])('%s waits %i s', (prefer, seconds) => {
    expect(waitOf(prefer, undefined, limits)).toEqual({ seconds, applied: `wait=${seconds}` })
  })

  test.each([
    ...[
      '',
      ',',
      'wait',
      'wait=',
      'wait=""',
      'wait=-1',
      'wait=+1',
      'wait=1.5',
      'wait=1e1',
      'wait=0x10',
      'wait=x',
    ],
    ...[
      'wait=10s',
      'wait="10',
      'wait=10"',
      "wait='10'",
      'wait=1 0',
      'wait=5=6',
      'wait=9999999999',
      'wait=x, wait=10',
    ],
    ...['await=10', 'wait-more=10', 'foo; wait=10', 'foo="wait=10"', 'respond-async', 'foo="a, wait=10, b"'],
  ])('%j is no wish that counts', (prefer) => {
    expect(waitOf(prefer, undefined, limits)).toEqual({ seconds: 25 })
  })

  test('that is not there leaves the default', () => {
    expect(waitOf(undefined, undefined, limits)).toEqual({ seconds: 25 })
  })
})

describe('?wait', () => {
  test.each([
    [0, 0],
    [10, 10],
    [55, 55],
    [3600, 55],
  ])('%i waits %i s, and Prefer does not count', (asked, seconds) => {
    expect(waitOf('wait=20', asked, limits)).toEqual({ seconds })
  })
})

test('the default is clamped as well', () => {
  expect(waitOf(undefined, undefined, { defaultSeconds: 100, maxSeconds: 55 })).toEqual({ seconds: 55 })
})
