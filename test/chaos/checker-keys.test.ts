import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { answerOf, changeOf, pullOf, rulesOf, wellStory } from './checker/story.ts'
import { judge } from './checker/judge.ts'
import type { Story } from './checker/story.ts'
import type { Entry } from './history.ts'

// The pull that was handed the job at 1,020 never saw it, and comes again at 1,500 with its key.

const idempotencyKey = 'k'
const pullKey = createHash('sha256').update(`s ${idempotencyKey}`).digest('hex').slice(0, 32)
const empty = (pull: string, at: number) => ({ ...answerOf(pull, at), status: 204, jobs: [] }) as Entry

function repeated(answer: Entry, askedAt = 1_500): Story {
  const story = wellStory()
  story.entries.splice(0, 3, pullOf('a', 500, { idempotencyKey }), ...story.entries.slice(1, 2))
  story.entries.push(
    { kind: 'broken', at: 1_040, pull: 'a', firstByteAt: null, keys: [] },
    pullOf('b', askedAt, { idempotencyKey }),
    answer,
    { kind: 'closed', at: 1_040, conn: 'ca', by: 'rst' },
  )
  story.changes[1] = changeOf(1_010, { pullKey })
  return story
}

test('a job that is given again is counted', () => {
  const { entries, changes, job, sessions } = repeated(answerOf('b', 1_520))
  const { violations, counts } = judge(entries, { changes, jobs: [job], sessions })
  expect(violations).toEqual([])
  expect(counts['jobs given again to a key']).toBe(1)
})

test('keys: a pull that comes again is not given what its key holds', () => {
  expect(rulesOf(repeated(empty('b', 1_520)))).toEqual(['keys'])
})

test('keys: whoever comes amid the claim, after its end, or in trouble need not be given it', () => {
  expect(rulesOf(repeated(empty('b', 1_120), 1_100))).toEqual([])
  expect(rulesOf(repeated(empty('b', 2_520), 2_500))).toEqual([])
  const story = repeated(empty('b', 1_520))
  story.entries.push({ kind: 'trouble', at: 1_000, what: 'gateway killed', gateway: 'g0', until: 3_000 })
  expect(rulesOf(story)).toEqual([])
})

test('keys: a pull that leaves with nothing after a while', () => {
  const story = repeated({ kind: 'broken', at: 1_900, pull: 'b', firstByteAt: null, keys: [] }, 1_300)
  story.entries.push({ kind: 'closed', at: 1_900, conn: 'cb', by: 'fin' })
  expect(rulesOf(story)).toEqual(['keys'])
  story.entries.push({ kind: 'link', at: 1_350, conn: 'cb', event: 'swallowed' })
  expect(rulesOf(story)).toEqual([])
})
