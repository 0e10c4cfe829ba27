import { expect, test } from 'vitest'
import { historyOf, judge } from './checker/judge.ts'
import type { Entry } from './history.ts'
import type { Change, DatabaseRecord, FinalJob } from './lib/record.ts'

// A short history in which all is well, and what the checker says when one thing in it is not.

type Story = { entries: Entry[]; changes: Change[]; job: FinalJob; sessions: number }

const [lease, otherLease] = ['11111111-aaaa', '22222222-bbbb']
const pullOf = (pull: string, at: number, more: object = {}): Entry => ({
  ...{ kind: 'pull', at, round: 7, pull, conn: `c${pull}`, process: 'x0', gateway: 'g0', subscription: 's' },
  ...{ topic: 't', ack: 'explicit', max: 1, reads: true, ...more },
})
const answerOf = (pull: string, at: number, more: object = {}): Entry => ({
  ...{ kind: 'answer', at, pull, firstByteAt: at, status: 200 },
  jobs: [{ id: '1', key: 'k1', lease, attempt: 1, whole: true, ...more }],
})
const changeOf = (at: number, more: Partial<Change>): Change => ({
  ...{
    at,
    application: 'chaos/g0/1',
    op: 'UPDATE',
    id: '1',
    state: 'running',
    attempts: 1,
    deliveries: 1,
    lease,
  },
  ...{ settled: null, leaseEndsAt: 12_000, ack: 'explicit', subscription: 's', outcome: null, ...more },
})
const settleOf = (call: string, at: number, verb: string, status: number, more: object = {}): Entry[] => [
  { kind: 'settle', at, call, gateway: 'g0', id: '1', lease, verb: verb as 'complete', ...more },
  { kind: 'settled', at: at + 10, call, status, code: null },
]

/** Published at 1,000, parked since 500, claimed and handed out at 1,010, completed at 2,000. */
function wellStory(onLost: FinalJob['onLost'] = 'requeue', state = 'succeeded'): Story {
  return {
    entries: [
      pullOf('a', 500),
      {
        ...{ kind: 'publish', at: 1_000, round: 7, key: 'k1', topic: 't', id: '1', outcome: 'committed' },
        ...{ onLost, maxAttempts: 5, expires: false },
      },
      answerOf('a', 1_020),
      ...settleOf('s1', 2_000, 'complete', 200),
    ],
    changes: [
      changeOf(990, {
        op: 'INSERT',
        state: 'ready',
        attempts: 0,
        deliveries: 0,
        lease: null,
        leaseEndsAt: null,
      }),
      changeOf(1_010, {}),
      changeOf(2_005, { op: 'DELETE' }),
    ],
    job: {
      ...{ id: '1', key: 'k1', state, attempts: 1, maxAttempts: 5, onLost, lease, settled: 'complete' },
      log: [],
    },
    sessions: 0,
  }
}

function rulesOf({ entries, changes, job, sessions }: Story): string[] {
  const record: DatabaseRecord = { changes, jobs: [job], sessions }
  const inOrder = entries.toSorted((a, b) => a.at - b.at)
  return [...new Set(judge(inOrder, record).violations.map(({ rule }) => rule))]
}

function spoiled(spoil: (story: Story) => void, story = wellStory()): string[] {
  spoil(story)
  return rulesOf(story)
}

/** Claimed a second time at 3,000, after the first hold ended as given, and completed under the second lease. */
function again({ changes, entries, job }: Story, end: Partial<Change>): void {
  const attempts = (end.attempts ?? 1) + 1
  changes.splice(
    ...[2, 1],
    changeOf(2_000, end),
    changeOf(3_000, { lease: otherLease, attempts, deliveries: 2 }),
    changeOf(3_500, { op: 'DELETE', lease: otherLease, attempts, deliveries: 2 }),
  )
  entries.splice(3)
  entries.push(pullOf('b', 2_900), answerOf('b', 3_010, { lease: otherLease, attempt: attempts }))
  entries.push(...settleOf('s2', 3_400, 'complete', 200, { lease: otherLease }))
  Object.assign(job, { lease: otherLease, attempts })
}
const gaveBack = { state: 'ready', attempts: 0, deliveries: 0, lease: null, leaseEndsAt: null }
const inDoubt = { state: 'ready', outcome: 'in doubt' }

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

test('I2: bytes that nobody asked for', () => {
  expect(
    spoiled(({ entries }) => entries.push({ kind: 'unasked', at: 1_500, conn: 'ca', bytes: 3 })),
  ).toEqual(['I2'])
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

const sample = {
  kind: 'sample',
  ...{ at: 9_000, gateway: 'g0', pulls: 30, parkedMetric: 30, connections: 6 },
  ...{ connectionsMax: 7, transactions: 0, sockets: 10, timers: 5 },
} as const

test('I4: a connection or a transaction per parked pull', () => {
  const samples = (more: object) =>
    spoiled(({ entries }) => entries.push({ ...sample, when: 'parked', ...more }))
  expect(samples({})).toEqual([])
  expect(samples({ connections: 30 })).toEqual(['I4'])
  expect(samples({ transactions: 1 })).toEqual(['I4'])
})

test('leaks: pulls, sockets or timers that stay when all have left', () => {
  const samples = (more: object) =>
    spoiled(({ entries }) => entries.push({ ...sample, when: 'idle', parkedMetric: 0, ...more }))
  expect(samples({})).toEqual([])
  for (const leak of [{ parkedMetric: 1 }, { sockets: 40 }, { timers: 400 }]) {
    expect(samples(leak)).toEqual(['process'])
  }
  expect(spoiled((story) => (story.sessions = 1))).toEqual(['process'])
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

test('I9: a later pull is served while an earlier one waits', () => {
  expect(
    spoiled(({ entries }) => {
      entries[0] = pullOf('a', 700)
      entries.push(pullOf('b', 100), { ...answerOf('b', 3_000), status: 204, jobs: [] } as Entry)
    }),
  ).toEqual(['I9'])
})

test('I10: a claim after the drain began', () => {
  const draining: Entry = { kind: 'draining', at: 700, gateway: 'g0', name: 'chaos/g0/1' }
  expect(spoiled(({ entries }) => entries.push(draining))).toEqual(['I10'])
  expect(spoiled(({ entries }) => entries.push({ ...draining, at: 900 }))).toEqual([])
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

test('the history of a job is all that concerns it, in order', () => {
  const { entries, changes, job, sessions } = wellStory()
  const lines = historyOf([...entries, pullOf('z', 1)], { changes, jobs: [job], sessions }, '1')
  expect(lines).toHaveLength(entries.length + changes.length + 1)
  expect(lines.join('\n')).not.toContain('"z"')
})
