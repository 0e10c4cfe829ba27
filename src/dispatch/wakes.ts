import type { Emit } from '../domain/events.ts'
import type { ListenerLossCause } from '../domain/types.ts'
import type { Arming } from './arming.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { DueWork } from './due-work.ts'
import type { HeldHeartbeats } from './held-heartbeats.ts'
import type { Marks } from './marks.ts'
import type { SubscriptionDirectory } from './subscription-directory.ts'

/** Turns what is heard on the channel pullgate_wake into kicks. Payloads: sql/functions/wake.sql. */
export type Wakes = {
  notified(payload: string): void
  /** Notifications are heard from now on, and may have been missed: look at every topic that has waiters. */
  resync(): void
  /** Notifications are not heard any more. */
  deaf(cause: ListenerLossCause): void
}

export function createWakes(options: {
  readonly dispatcher: Pick<Dispatcher, 'kick' | 'kickAll'>
  readonly dueWork: Pick<DueWork, 'lookAhead'>
  readonly directory: Pick<SubscriptionDirectory, 'forget' | 'forgetAll'>
  readonly arming: Pick<Arming, 'notified' | 'listening' | 'deaf'>
  readonly marks: Pick<Marks, 'forget'>
  readonly heldHeartbeats: Pick<HeldHeartbeats, 'announced' | 'announcedAll'>
  readonly emit: Emit
}): Wakes {
  const { dispatcher, dueWork, directory, arming, marks, heldHeartbeats, emit } = options
  // Any role may NOTIFY anything: a payload is a hint from an unknown hand.
  function wake(payload: string): 'woke' | 'idle' | 'invalid' {
    const [, due, topic] = /^(due:)?(-?\d{1,20})$/.exec(payload) ?? []
    if (topic !== undefined) {
      const kicks = arming.notified(topic, due === undefined ? 'ready' : 'due')
      if (due === undefined) return kicks ? dispatcher.kick(topic, 'notification') : 'idle'
      dueWork.lookAhead()
      return 'woke'
    }
    const [, cancelled] = /^cancel:(\d{1,19})$/.exec(payload) ?? []
    if (cancelled !== undefined) return heldHeartbeats.announced(cancelled) ? 'woke' : 'idle'
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
      marks.forget()
      directory.forgetAll()
      arming.listening()
      dispatcher.kickAll('resync')
      heldHeartbeats.announcedAll()
      dueWork.lookAhead()
    },
    deaf(cause) {
      // The server that claims are made on may be another one from now on.
      marks.forget()
      // Any other cause passes, and the backstop bridges it.
      const forLong = cause === 'pooler'
      arming.deaf(forLong)
      // What comes back short is polled from then on.
      if (forLong) dispatcher.kickAll('resync')
    },
  }
}
