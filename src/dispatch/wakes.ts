import type { Emit } from '../domain/events.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { DueWork } from './due-work.ts'
import type { SubscriptionDirectory } from './subscription-directory.ts'

/** Turns what is heard on the channel pullgate_wake into kicks. Payloads: sql/functions/wake.sql. */
export type Wakes = {
  notified(payload: string): void
  /** Notifications may have been missed: look at every topic that has waiters. */
  resync(): void
}

export function createWakes(options: {
  readonly dispatcher: Pick<Dispatcher, 'kick' | 'kickAll'>
  readonly dueWork: Pick<DueWork, 'lookAhead'>
  readonly directory: Pick<SubscriptionDirectory, 'forget'>
  readonly emit: Emit
}): Wakes {
  const { dispatcher, dueWork, directory, emit } = options
  // Any role may NOTIFY anything: a payload is a hint from an unknown hand.
  function wake(payload: string): 'woke' | 'idle' | 'invalid' {
    if (/^-?\d{1,20}$/.test(payload)) return dispatcher.kick(payload, 'notification')
    if (payload === 'due') {
      dueWork.lookAhead()
      return 'woke'
    }
    const [, ended] = /^ended:([0-9a-f-]{36})$/.exec(payload) ?? []
    if (ended === undefined) return 'invalid'
    directory.forget([ended])
    // Whether it has ended is for the database to say.
    dueWork.lookAhead()
    return 'woke'
  }
  return {
    notified: (payload) => emit({ type: 'notification', result: wake(payload) }),
    resync() {
      dispatcher.kickAll('resync')
      dueWork.lookAhead()
    },
  }
}
