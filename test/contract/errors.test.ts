import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { errorCodeOf, errorTable } from '../../src/domain/errors.ts'

// docs/errors.md, the table of errors and the SQLSTATEs that sql/ raises say the same.

const root = new URL('../../', import.meta.url)
const read = (path: string) => readFileSync(new URL(path, root), 'utf8')

const sections = [...read('docs/errors.md').matchAll(/^### (\S+)\n\n(.*)\n\n([^#]+)/gm)].map(
  ([, code = '', facts = '', text = '']) => ({ code, facts, text }),
)
const table: Record<string, { status: number; title: string; sqlState?: string }> = errorTable

test('every code has its section, and so its anchor, in the order of the table; nothing else has', () => {
  expect(sections.map(({ code }) => code)).toEqual(Object.keys(table))
  const headings = [...read('docs/errors.md').matchAll(/^### (.*)$/gm)].map(([, heading]) => heading)
  expect(headings).toEqual(Object.keys(table))
})

describe.each(sections)('$code', ({ code, facts, text }) => {
  test('has its status, SQLSTATE and title', () => {
    const entry = table[code]
    const sqlState = entry?.sqlState === undefined ? '' : ` · SQLSTATE \`${entry.sqlState}\``
    expect(facts).toBe(`${entry?.status}${sqlState} · ${entry?.title}.`)
  })

  test('says more than its title', () => {
    expect(text.trim().length).toBeGreaterThan(40)
  })
})

test('a code is a word for an anchor and a URN', () => {
  for (const code of Object.keys(table)) expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/)
})

test('SQLSTATEs are of our class, one for each error', () => {
  const states = Object.values(table).flatMap(({ sqlState }) => sqlState ?? [])
  for (const state of states) expect(state).toMatch(/^PL\d{3}$/)
  expect(new Set(states).size).toBe(states.length)
  for (const [code, { sqlState }] of Object.entries(table)) {
    if (sqlState !== undefined) expect(errorCodeOf(sqlState)).toBe(code)
  }
  expect(errorCodeOf('PL999')).toBeUndefined()
})

test('the SQLSTATEs that sql/ raises are those of the table', () => {
  const raised = readdirSync(new URL('sql/functions/', root))
    .filter((file) => file.endsWith('.sql'))
    .flatMap((file) =>
      [...read(`sql/functions/${file}`).matchAll(/errcode = '(PL\d{3})'/g)].map(([, state]) => state),
    )
  const known = Object.values(table).flatMap(({ sqlState }) => sqlState ?? [])
  expect([...new Set(raised)].toSorted()).toEqual(known.toSorted())
})
