import { createDispatcher } from '../../src/dispatch/dispatcher.ts'
import type { ClaimReport } from '../../src/dispatch/arming.ts'
import type { Dispatcher } from '../../src/dispatch/dispatcher.ts'
import { Waiter } from '../../src/dispatch/waiter.ts'
import type { Answer } from '../../src/dispatch/waiter.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { Held } from '../../src/domain/ports.ts'
import type { Subscription, TopicId } from '../../src/domain/types.ts'
import { createFakeClock, idle } from './fake-clock.ts'
import type { FakeClock } from './fake-clock.ts'
import { createFakeJobStore, noMarks } from './fake-job-store.ts'
import type { FakeJobStore } from './fake-job-store.ts'

/** A pull as the dispatcher sees it, with what it was answered. */
export type Probe = {
  readonly waiter: Waiter
  readonly answers: Answer[]
  /** False: the socket is dead, and nobody has noticed yet. */
  live: boolean
}

export type DispatchWorld = {
  readonly clock: FakeClock
  readonly store: FakeJobStore
  readonly dispatcher: Dispatcher
  readonly events: GatewayEvent[]
  /** Whether there is an id to claim under. */
  readonly identity: { mayClaim: boolean }
  /** Ids of the jobs that were given back. */
  readonly givenBack: string[]
  /** Topics of which arming says that a job to come will kick them. */
  readonly covered: Set<TopicId>
  /** What arming was told of claims. */
  readonly claims: [TopicId, ClaimReport][]
  /** Parks a pull. */
  pull(
    subscription: Subscription,
    options?: { waitMs?: number; max?: number; key?: string | undefined },
  ): Probe
}

export function probe(
  subscription: Subscription,
  max = 1,
  onAnswer: (answer: Answer) => void = () => undefined,
  key?: string,
): Probe {
  const answers: Answer[] = []
  class ProbedWaiter extends Waiter {
    override isLive = () => made.live
    override answer = (answer: Answer) => {
      answers.push(answer)
      onAnswer(answer)
    }
  }
  const made: Probe = { answers, live: true, waiter: new ProbedWaiter(subscription, max, key) }
  return made
}

export function createDispatchWorld(seed = 1): DispatchWorld {
  const clock = createFakeClock({ seed })
  const store = createFakeJobStore()
  const events: GatewayEvent[] = []
  const givenBack: string[] = []
  const deliveries = { giveBack: (jobs: readonly Held[]) => void givenBack.push(...jobs.map(({ id }) => id)) }
  const identity = { mayClaim: true }
  const covered = new Set<TopicId>()
  const claims: [TopicId, ClaimReport][] = []
  const dispatcher = createDispatcher({
    ...{ store, deliveries, clock, marks: noMarks, mayClaim: () => identity.mayClaim },
    arming: {
      claimed: (topic, report) => void claims.push([topic, report]),
      covers: (topic) => covered.has(topic),
    },
    emit: (event) => void events.push(event),
  })
  return {
    ...{ clock, store, dispatcher, events, givenBack, identity, covered, claims },
    pull(subscription, { waitMs = 10_000, max = 1, key } = {}) {
      const made = probe(subscription, max, undefined, key)
      dispatcher.park(made.waiter, waitMs)
      return made
    },
  }
}

/** What the pull was answered, in one word each; of jobs their ids. */
export function told({ answers }: Probe): string[] {
  return answers.map((answer) =>
    answer.kind === 'jobs' ? answer.jobs.map(({ id }) => id).join(',') : answer.kind,
  )
}

/** Answers every claim empty until none is under way. */
export async function findNothing({ store }: DispatchWorld): Promise<void> {
  for (let n = 0; store.claim.open.length > 0; n += 1) {
    if (n > 50) throw new Error('claims follow claims without end')
    store.nextClaim().give()
    await idle()
  }
}
