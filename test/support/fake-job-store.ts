import type { Claim, DueClaim, DueResult, Held, JobStore, Slot, WatchStore } from '../../src/domain/ports.ts'
import type { ClaimedJob, Subscription, TopicId } from '../../src/domain/types.ts'

/** A function whose every call is answered by the test. */
export type FakeCall<Args extends readonly unknown[], Result> = {
  (...args: Args): Promise<Result>
  /** Calls without an answer, oldest first. */
  readonly open: { readonly args: Args; resolve(result: Result): void; reject(error: Error): void }[]
  readonly total: () => number
  /** The oldest call without an answer. */
  next(): { readonly args: Args; resolve(result: Result): void; reject(error: Error): void }
}

export function fakeCall<Args extends readonly unknown[], Result>(): FakeCall<Args, Result> {
  const open: FakeCall<Args, Result>['open'] = []
  let total = 0
  const call = (...args: Args) => {
    total += 1
    return new Promise<Result>((resolve, reject) => {
      const forget = () => open.splice(open.indexOf(entry), 1)
      const entry = {
        args,
        resolve: (result: Result) => {
          forget()
          resolve(result)
        },
        reject: (error: Error) => {
          forget()
          reject(error)
        },
      }
      open.push(entry)
    })
  }
  const next = () => {
    const [first] = open
    if (first === undefined) throw new Error('nothing was called')
    return first
  }
  return Object.assign(call, { open, next, total: () => total })
}

export type ClaimCall = {
  readonly topic: TopicId
  readonly slots: readonly Slot[]
  /** Answers with these jobs, the first slot filled first. */
  give(...ids: string[]): void
  answer(claim: Claim): void
  fail(error: Error): void
}

type Reports = FakeCall<[jobs: readonly Held[]], number>

/** Each function of a store, with every call answered by the test. */
type Faked<Store> = {
  readonly [Name in keyof Store]: Store[Name] extends (...args: infer Args) => Promise<infer Result>
    ? FakeCall<Args, Result>
    : never
}

export type FakeWatchStore = Faked<WatchStore>

export function createFakeWatchStore(): FakeWatchStore {
  return {
    runDue: fakeCall(),
    look: fakeCall(),
    arm: fakeCall(),
    disarm: fakeCall(),
    advanceMarks: fakeCall(),
    reseat: fakeCall(),
  }
}

/** Where no claim is to leave anything out. */
export const noMarks = {
  dueAfter: null,
  of: () => ({ lanes: [], marks: [] }),
  claimed: () => undefined,
  refresh: () => undefined,
  forget: () => undefined,
}

export type FakeJobStore = Omit<JobStore, 'claim' | 'claimDue' | 'refresh'> & {
  readonly claim: FakeCall<Parameters<JobStore['claim']>, Claim>
  readonly claimDue: FakeCall<Parameters<JobStore['claimDue']>, DueClaim>
  readonly giveBack: Reports
  readonly confirm: Reports
  readonly doubt: Reports
  /** The oldest claim without an answer, or that of the topic. */
  nextClaim(topic?: TopicId): ClaimCall
}

export function createFakeJobStore(): FakeJobStore {
  const claim = fakeCall<Parameters<JobStore['claim']>, Claim>()
  return {
    claim,
    claimDue: fakeCall(),
    giveBack: fakeCall(),
    confirm: fakeCall(),
    doubt: fakeCall(),
    nextClaim(wanted) {
      const call = claim.open.find(({ args: [topic] }) => wanted === undefined || topic.id === wanted)
      if (call === undefined) throw new Error(`no claim of ${wanted ?? 'any topic'} is under way`)
      const [topic, slots] = call.args
      return {
        topic: topic.id,
        slots,
        give: (...ids) => call.resolve({ jobs: fill(topic.id, slots, ids), endedSlots: [] }),
        answer: call.resolve,
        fail: call.reject,
      }
    },
  }
}

/** As the database fills slots: in their order, each up to its count. */
export function fill(topic: TopicId, slots: readonly Slot[], ids: readonly string[]): Claim['jobs'] {
  const places = slots.flatMap(({ jobs }, slot) => Array.from({ length: jobs }, () => slot))
  if (ids.length > places.length) throw new Error('more jobs than the claim asked for')
  return ids.map((id, index) => ({ slot: places[index] ?? 0, job: job(id, topic) }))
}

/** A run that found nothing due. */
export const nothingDue: DueResult = {
  topics: [],
  promoted: 0,
  expired: 0,
  leasesChecked: 0,
  leasesLost: {},
  offersEnded: {},
  more: false,
  waitedMs: 0,
  stuck: 0,
}

const instant = new Date('2026-01-02T03:04:05Z')

export function job(id: string, topic: TopicId = 'a'): ClaimedJob {
  return {
    id,
    topic: { id: topic, name: `jobs_${topic}` },
    lease: `lease of ${id}`,
    leaseSeconds: 60,
    leaseEndsAt: instant,
    holdSeconds: 60,
    offered: false,
    attempt: 1,
    redelivered: false,
    publishedAt: instant,
    readySeconds: 0.01,
    traceparent: null,
    jobSpec: '{}',
  }
}

export function subscription(
  id: string,
  topics: readonly TopicId[] = ['a'],
  more: Partial<Subscription> = {},
): Subscription {
  return {
    id,
    name: null,
    topics: topics.map((topic) => ({ id: topic, name: `jobs_${topic}` })),
    ack: 'auto',
    leaseSeconds: 60,
    offerSeconds: null,
    maxParked: null,
    createdAt: instant,
    lastPullAt: null,
    endedAt: null,
    ...more,
  }
}
