import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { cutJson } from '../../src/http/json-text.ts'

/** Text of a value, and where it has members or elements their names and texts. */
type Written = { readonly text: string; readonly parts: (readonly [name: string, text: string])[] }

const space = fc.string({ unit: fc.constantFrom(' ', '\t', '\n', '\r'), maxLength: 3 })

const hexEscape = fc.nat(0xffff).map((code) => `\\u${code.toString(16).padStart(4, '0')}`)
const character = fc.oneof(
  fc.constantFrom(
    'a',
    'Z',
    ' ',
    ',',
    ':',
    '{',
    '}',
    '[',
    ']',
    '/',
    '//',
    '/*',
    '*/',
    "'",
    'é',
    '😀',
    '\u2028',
  ),
  fc.constantFrom('\\"', '\\\\', '\\/', '\\b', '\\n', '\\u0000', '\\ud800', '\\uDC00', '\ud800', '__proto__'),
  hexEscape,
)
const string = fc.string({ unit: character, maxLength: 8 }).map((inner) => `"${inner}"`)
const number = fc.constantFrom(
  ...[
    '0',
    '-0',
    '1.0',
    '-1.50',
    '1e5',
    '1E+05',
    '0.1e-7',
    '12345678901234567890123456789',
    '1e400',
    '-1E-400',
  ],
)
const scalar = fc.oneof(fc.constantFrom('null', 'true', 'false'), number, string)
const key = fc.oneof(string, fc.constantFrom('"__proto__"', '"constructor"', '"a"', '""', '"\\u0061"'))

const { value } = fc.letrec<{ value: Written }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    scalar.map((text) => ({ text, parts: [] })),
    fc.array(fc.tuple(space, key, space, space, tie('value'), space), { maxLength: 5 }).map((members) => ({
      text: `{${members.map(([a, name, b, c, inner, d]) => a + name + b + ':' + c + inner.text + d).join(',')}}`,
      parts: members.map(([, name, , , inner]) => [JSON.parse(name) as string, inner.text] as const),
    })),
    fc.array(fc.tuple(space, tie('value'), space), { maxLength: 5 }).map((elements) => ({
      text: `[${elements.map(([a, inner, b]) => a + inner.text + b).join(',')}]`,
      parts: elements.map(([, inner], index) => [String(index), inner.text] as const),
    })),
  ),
}))

test('each member and element comes out as it was written, of duplicates the last', () => {
  fc.assert(
    fc.property(space, value, space, (before, { text, parts }, after) => {
      const whole = before + text + after
      expect(() => void JSON.parse(whole)).not.toThrow()
      expect(cutJson(whole)).toEqual(new Map(parts))
    }),
    { numRuns: 1_000 },
  )
})

describe('a member keeps', () => {
  test.each([
    ['digits', '12345678901234567890.1234567890'],
    ['the form of a number', '-0.0E+00'],
    ['an escaped zero', '"a\\u0000b"'],
    ['lone surrogates', '"\\ud800 \\uDFFF"'],
    ['escapes as they are', '"\\u00e9\\/\\n"'],
    ['the order of keys, duplicates and spaces', '{ "b":1,\n"a" : 2 ,"b":3 }'],
    ['what looks like a comment', '"// not /* a */ comment"'],
  ])('%s', (_, text) => {
    expect(cutJson(`{"id":7, "jobSpec" :${text} ,"x":[]}`).get('jobSpec')).toBe(text)
    expect(cutJson(`[${text},\t${text}\n]`).get('1')).toBe(text)
  })
})

test('names are read as JSON.parse reads them', () => {
  const parts = cutJson('{"\\u006aobSpec":1,"__proto__":{"a":2},"toString":3,"jobSpec":4}')
  expect([...parts]).toEqual([['jobSpec', '4'], ['__proto__', '{"a":2}'], ['toString', '3']]) // prettier-ignore
  expect(parts.get('hasOwnProperty')).toBeUndefined()
})

test('members of members are not members', () => {
  expect(cutJson('{"a":{"jobSpec":1},"b":[{"jobSpec":2}]}').has('jobSpec')).toBe(false)
})

test.each(['1', '"text"', 'null', '{}', '[]', ' [ ] '])('%s has no parts', (text) => {
  expect(cutJson(text).size).toBe(0)
})

test.each(['array', 'object'])(
  'a deep %s is cut all the same: a body of 2 MiB can hold a million levels',
  (kind) => {
    const levels = 300_000
    const deep =
      kind === 'array'
        ? '['.repeat(levels) + ']'.repeat(levels)
        : '{"a":'.repeat(levels) + '1' + '}'.repeat(levels)
    const text = `{"jobSpec":${deep},"priority":1}`
    expect(() => void JSON.parse(text)).not.toThrow()
    expect(cutJson(text).get('jobSpec') === deep).toBe(true)
  },
)
