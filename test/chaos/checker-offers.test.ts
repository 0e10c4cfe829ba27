import { expect, test } from 'vitest'
import { again, changeOf, rulesOf, settleOf, wellStory } from './checker/story.ts'
import type { Story } from './checker/story.ts'
import type { Change } from './lib/record.ts'

// A job that was first offered at 1,010, and is claimed once more at 3,000.

const offer: Partial<Change> = { state: 'offered', attempts: 0 }
const notAccepted: Partial<Change> = { state: 'ready', attempts: 0, outcome: 'not accepted' }

/** `between` is what happens to the offer before it ends like this. */
function offered(onLost: 'requeue' | 'orphan', end: Partial<Change>, between: Change[] = []): Story {
  const story = wellStory(onLost)
  again(story, end)
  story.changes[1] = changeOf(1_010, offer)
  story.changes.splice(2, 0, ...between)
  return story
}

test('an offer that was not accepted may be made again under every policy, and costs no attempt', () => {
  for (const onLost of ['requeue', 'orphan'] as const) {
    expect(rulesOf(offered(onLost, notAccepted))).toEqual([])
  }
})

test('I6: an offer that was not accepted spends an attempt', () => {
  expect(rulesOf(offered('requeue', { ...notAccepted, attempts: 1 }))).toEqual(['I6'])
})

test('I13: a job whose offer was accepted is handed out again under orphan', () => {
  const accepted = changeOf(1_100, { state: 'running' })
  const lost: Partial<Change> = { state: 'ready', outcome: 'lost', leaseEndsAt: 1_900 }
  expect(rulesOf(offered('orphan', lost, [accepted]))).toEqual(['I13'])
  expect(rulesOf(offered('requeue', lost, [accepted]))).toEqual([])
})

test('I5: an offer that ended is refused before its job was claimed again', () => {
  const story = offered('requeue', notAccepted)
  story.entries.push(...settleOf('early', 2_500, 'heartbeat', 409))
  expect(rulesOf(story)).toEqual(['I5'])
  story.entries.splice(-2, 2, ...settleOf('late', 3_200, 'heartbeat', 409))
  expect(rulesOf(story)).toEqual([])
})

test('I3: a job that is still offered in the end', () => {
  const story = wellStory('requeue', 'offered')
  story.changes.splice(1, 2, changeOf(1_010, offer))
  story.entries.splice(3)
  Object.assign(story.job, { attempts: 0, settled: null })
  expect(rulesOf(story)).toEqual(['I3'])
})
