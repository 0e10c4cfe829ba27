import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

// docs/invariants.md names tests that exist.

const root = new URL('../../', import.meta.url)
const page = readFileSync(new URL('docs/invariants.md', root), 'utf8')

const sections = page
  .split(/^## /m)
  .slice(1)
  .map((section) => {
    const [heading = '', ...lines] = section.split('\n')
    const tests = lines.flatMap((line) => {
      const [, file, title] = /^- `(test\/\S+)`: (.+)$/.exec(line) ?? []
      return file === undefined || title === undefined ? [] : [{ file, title }]
    })
    const bullets = lines.filter((line) => line.startsWith('- ')).length
    const later = lines.filter((line) => line.startsWith('Later: '))
    return { id: heading.split(':')[0] ?? '', heading, tests, bullets, later }
  })

test('the invariants are I1 to I13, each once', () => {
  expect(sections.map(({ id }) => id)).toEqual(Array.from({ length: 13 }, (_, n) => `I${n + 1}`))
})

describe.each(sections)('$id', ({ heading, tests, bullets, later }) => {
  test('says what holds, and has a test or a reason why not yet', () => {
    expect(heading).toMatch(/^I\d+: .{20,}/)
    expect(tests.length + later.length).toBeGreaterThan(0)
    expect(tests).toHaveLength(bullets)
    for (const reason of later) expect(reason.length).toBeGreaterThan(40)
  })

  test.each(tests)('$file has: $title', ({ file, title }) => {
    const url = new URL(file, root)
    expect(existsSync(url)).toBe(true)
    const text = readFileSync(url, 'utf8')
    // Titles of groups and tests, from the outside in.
    for (const part of title.split(' › ')) {
      expect(
        ['"', "'", '`'].some((quote) => text.includes(quote + part + quote)),
        part,
      ).toBe(true)
    }
  })
})
