import type { Entry } from '../history.ts'
import type { Change, DatabaseRecord, FinalJob } from '../lib/record.ts'
import { judge } from './judge.ts'

/** A short history in which all is well, and what the checker says when one thing in it is not. */

export type Story = { entries: Entry[]; changes: Change[]; job: FinalJob; sessions: number }

export const [lease, otherLease] = ['11111111-aaaa', '22222222-bbbb']
export const pullOf = (pull: string, at: number, more: object = {}): Entry => ({
  ...{ kind: 'pull', at, round: 7, pull, conn: `c${pull}`, process: 'x0', gateway: 'g0', subscription: 's' },
  ...{ topic: 't', ack: 'explicit', max: 1, reads: true, ...more },
})
export const answerOf = (pull: string, at: number, more: object = {}): Entry => ({
  ...{ kind: 'answer', at, pull, firstByteAt: at, status: 200 },
  jobs: [{ id: '1', key: 'k1', lease, attempt: 1, whole: true, ...more }],
})
export const changeOf = (at: number, more: Partial<Change>): Change => ({
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
  ...{ settled: null, leaseEndsAt: 12_000, ack: 'explicit', subscription: 's', outcome: null },
  ...{ pullKey: null, ...more },
})
export const settleOf = (
  call: string,
  at: number,
  verb: string,
  status: number,
  more: object = {},
): Entry[] => [
  { kind: 'settle', at, call, gateway: 'g0', id: '1', lease, verb: verb as 'complete', ...more },
  { kind: 'settled', at: at + 10, call, status, code: null },
]

/** Published at 1,000, parked since 500, claimed and handed out at 1,010, completed at 2,000. */
export function wellStory(onLost: FinalJob['onLost'] = 'requeue', state = 'succeeded'): Story {
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

export function rulesOf({ entries, changes, job, sessions }: Story): string[] {
  const record: DatabaseRecord = { changes, jobs: [job], sessions }
  const inOrder = entries.toSorted((a, b) => a.at - b.at)
  return [...new Set(judge(inOrder, record).violations.map(({ rule }) => rule))]
}

export function spoiled(spoil: (story: Story) => void, story = wellStory()): string[] {
  spoil(story)
  return rulesOf(story)
}

/** Claimed a second time at 3,000, after the first hold ended as given, and completed under the second lease. */
export function again({ changes, entries, job }: Story, end: Partial<Change>): void {
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
export const gaveBack = { state: 'ready', attempts: 0, deliveries: 0, lease: null, leaseEndsAt: null }
export const inDoubt = { state: 'ready', outcome: 'in doubt' }
