import { expect, test } from 'vitest'
import { historyOf } from './checker/judge.ts'
import {
  again,
  answerOf,
  changeOf,
  gaveBack,
  inDoubt,
  lease,
  otherLease,
  pullOf,
  rulesOf,
  settleOf,
  spoiled,
  wellStory,
} from './checker/story.ts'
import type { Story } from './checker/story.ts'
import type { Entry } from './history.ts'
import type { Change, FinalJob } from './lib/record.ts'

// One thing is wrong with a job's history.

test('nothing is wrong with a history in which all is well', () => {
  expect(rulesOf(wellStory())).toEqual([])
})

test('I1: a job that is claimed while it runs', () => {
  expect(spoiled((story) => again(story, { lease: 'x' }))).toContain('I1')
})

test('I1: one claim, two executors', () => {
  expect(spoiled(({ entries }) => entries.push(pullOf('b', 600), answerOf('b', 1_030)))).toEqual(['I1'])
})

test('I1: the same key may be given the same again', () => {
  const key = { idempotencyKey: 'k' }
  const story = wellStory()
  story.entries[0] = pullOf('a', 500, key)
  story.entries.push(pullOf('b', 1_025, key), answerOf('b', 1_030))
  expect(rulesOf(story)).toEqual([])
})

test('I1: a lease that ends before its time', () => {
  expect(spoiled((story) => again(story, { state: 'ready', outcome: 'lost' }))).toEqual(['I1'])
  expect(spoiled((story) => again(story, { state: 'ready', outcome: 'lost', leaseEndsAt: 2_000 }))).toEqual(
    [],
  )
})

test('I3: a job that stays ready beside a parked pull; not while the gateway is in trouble', () => {
  const late = (story: Story) => {
    story.entries[2] = answerOf('a', 6_020)
    story.changes[1] = changeOf(6_010, {})
    story.entries.splice(3, 2, ...settleOf('s1', 7_000, 'complete', 200))
    story.changes[2] = changeOf(7_005, { op: 'DELETE' })
  }
  expect(spoiled(late)).toEqual(['I3'])
  const trouble: Entry = { kind: 'trouble', at: 2_000, what: 'gateway stopped', gateway: 'g0', until: 4_000 }
  expect(
    spoiled((story) => {
      late(story)
      story.entries.push(trouble)
    }),
  ).toEqual([])
})

test.each(['scheduled', 'ready', 'running'])('I3: a job that is still %s in the end', (state) => {
  expect(
    spoiled((story) => {
      Object.assign(story.job, { state })
      story.changes.splice(2)
      story.entries.splice(3)
    }),
  ).toContain('I3')
})

test('I5: a settle that was answered 200 and did nothing', () => {
  expect(spoiled(({ entries }) => entries.push(...settleOf('s2', 2_500, 'release', 200)))).toContain('I5')
  expect(spoiled(({ job }) => Object.assign(job, { lease: otherLease }))).toContain('I5')
})

test('I5: a lease that counts is refused; one that is stale may be', () => {
  expect(spoiled(({ entries }) => entries.push(...settleOf('s2', 1_500, 'fail', 409)))).toEqual(['I5'])
  expect(spoiled(({ entries }) => entries.push(...settleOf('s2', 2_500, 'fail', 409)))).toEqual([])
})

test('I5: a settle that is said again gets another answer', () => {
  expect(spoiled(({ entries }) => entries.push(...settleOf('s2', 2_500, 'complete', 409)))).toEqual(['I5'])
})

test('I5: a settled lease is good for a heartbeat', () => {
  expect(spoiled(({ entries }) => entries.push(...settleOf('s2', 2_500, 'heartbeat', 200)))).toEqual(['I5'])
})

test('I6: a give-back that spends an attempt', () => {
  const unseen = (end: Partial<Change>) => (story: Story) => {
    again(story, end)
    story.entries.splice(2, 1, { kind: 'closed', at: 1_011, conn: 'ca', by: 'rst' })
    story.entries.push({ kind: 'broken', at: 1_011, pull: 'a', firstByteAt: null, keys: [] })
  }
  expect(spoiled(unseen(gaveBack))).toEqual([])
  expect(spoiled(unseen({ ...gaveBack, attempts: 1 }))).toContain('I6')
})

test('I6: an attempt that is spent though nobody saw a byte and nothing broke', () => {
  expect(
    spoiled((story) => {
      again(story, { state: 'ready', outcome: 'lost', leaseEndsAt: 2_000 })
      story.entries.splice(2, 1, { ...answerOf('a', 1_020), status: 204, jobs: [] } as Entry)
    }),
  ).toEqual(['I6'])
})

test('I6: whoever had left before the claim was answered costs no attempt', () => {
  const gone = (end: Partial<Change>) => (story: Story) => {
    again(story, end)
    story.entries.splice(2, 1, { kind: 'closed', at: 1_100, conn: 'ca', by: 'rst' })
    story.entries.push({ kind: 'broken', at: 1_100, pull: 'a', firstByteAt: null, keys: [] })
    story.entries.push({ kind: 'replies delayed', at: 900, gateway: 'g0', ms: 400, until: 2_000 })
  }
  expect(spoiled(gone({ state: 'ready', outcome: 'lost', leaseEndsAt: 2_000 }))).toEqual(['I6'])
  expect(spoiled(gone(gaveBack))).toEqual([])
})

test('I11: a rolled-back publish that is there, a committed one that is not', () => {
  const outcome = (outcome: string) => (story: Story) => Object.assign(story.entries[1] ?? {}, { outcome })
  expect(spoiled(outcome('rolled back'))).toContain('I11')
  expect(spoiled(outcome('unknown'))).toEqual([])
  expect(
    spoiled(({ entries }) => {
      const [, published] = entries
      entries.push({ ...published, key: 'k2', id: '2' } as Entry)
    }),
  ).toEqual(['I11'])
})

for (const onLost of ['orphan', 'fail'] as const) {
  test(`I13: ${onLost}: handed out again after a byte was seen; not if its executor let go of it`, () => {
    const story = () => wellStory(onLost)
    expect(spoiled((one) => again(one, gaveBack), story())).toContain('I13')
    expect(spoiled((one) => again(one, { ...inDoubt, leaseEndsAt: 2_000 }), story())).toContain('I13')
    const part = (one: Story) => {
      again(one, gaveBack)
      one.entries.splice(2, 1)
      one.entries.push({ kind: 'broken', at: 1_050, pull: 'a', firstByteAt: 1_030, keys: ['k1'] })
    }
    expect(spoiled(part, story())).toEqual(['I13'])
    expect(
      spoiled((one) => {
        again(one, { state: 'ready', settled: 'release', attempts: 0 })
        one.entries.push(...settleOf('s3', 1_900, 'release', 200))
        Object.assign(one.job, { log: [{ outcome: 'released', lease, state: 'ready' }] })
      }, story()),
    ).toEqual([])
  })
}

function automatic(end: Partial<Change>): (story: Story) => void {
  return (story) => {
    again(story, { ...end, ack: 'auto' })
    story.entries[0] = pullOf('a', 500, { ack: 'auto' })
    story.entries[2] = answerOf('a', 1_020, { lease: null })
    story.changes[1] = changeOf(1_010, { ack: 'auto' })
  }
}

test('run twice: an automatic acknowledgement is in doubt though the connection was whole', () => {
  expect(spoiled(automatic(inDoubt))).toEqual(['twice'])
  expect(
    spoiled((story) => {
      automatic(inDoubt)(story)
      story.entries.push({ kind: 'closed', at: 1_500, conn: 'ca', by: 'rst' })
    }),
  ).toEqual([])
})

test('delivered though the connection was reset at once and nothing was read', () => {
  const unread = (end: Partial<Change>, final: Partial<FinalJob>) => (story: Story) => {
    story.entries = [
      pullOf('a', 500, { ack: 'auto', reads: false }),
      ...story.entries.slice(1, 2),
      { kind: 'broken', at: 1_200, pull: 'a', firstByteAt: null, keys: [] },
      { kind: 'closed', at: 1_200, conn: 'ca', by: 'rst' },
    ]
    story.changes = [
      ...story.changes.slice(0, 1),
      changeOf(1_010, { ack: 'auto' }),
      changeOf(1_250, { op: 'DELETE', ack: 'auto', ...end }),
    ]
    Object.assign(story.job, { settled: null, ...final })
  }
  expect(spoiled(unread({}, { state: 'delivered' }))).toEqual(['twice'])
  const log = [{ outcome: 'in doubt', lease, state: 'failed' }]
  expect(spoiled(unread({}, { state: 'failed', onLost: 'fail', log }))).toEqual([])
})

test.each(['succeeded', 'failed', 'cancelled', 'expired', 'orphaned', 'delivered'])(
  'a job that is %s without a reason',
  (state) => {
    expect(
      spoiled((story) => {
        Object.assign(story.job, { state, settled: null })
        story.entries.splice(3)
      }),
    ).toContain('jobs')
  },
)

test('a job spec that was changed', () => {
  expect(spoiled(({ entries }) => (entries[2] = answerOf('a', 1_020, { whole: false })))).toEqual(['answers'])
})

test('the history of a job is all that concerns it, in order', () => {
  const { entries, changes, job, sessions } = wellStory()
  const lines = historyOf([...entries, pullOf('z', 1)], { changes, jobs: [job], sessions }, '1')
  expect(lines).toHaveLength(entries.length + changes.length + 1)
  expect(lines.join('\n')).not.toContain('"z"')
})
