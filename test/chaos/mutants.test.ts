import { expect, test } from 'vitest'
import { edited } from './lib/build.ts'
import { mutants } from './mutants.ts'

// Whether each is caught takes a campaign: npm run chaos -- --mutants.

test('there are mutants, each with a name of its own', () => {
  expect(mutants.length).toBeGreaterThan(10)
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length)
})

test.each(mutants.map(({ name, edits }) => [name, edits] as const))(
  'can still be made: %s',
  (_name, edits) => {
    for (const { file } of edits) expect(edited(file, edits)).not.toBe(edited(file, []))
  },
)
