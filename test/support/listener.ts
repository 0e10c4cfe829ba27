import { onTestFinished } from 'vitest'
import { createListener } from '../../src/db/listener.ts'
import type { Listener, ListenerOptions } from '../../src/db/listener.ts'
import { systemClock } from '../../src/domain/clock.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { ListenerLossCause } from '../../src/domain/types.ts'

/** A listener until the end of the test, and what it told. */
export type Watched = {
  readonly listener: Listener
  readonly heard: string[]
  readonly events: GatewayEvent['type'][]
  readonly reasons: string[]
  readonly causes: ListenerLossCause[]
  resyncs: number
  losses: number
}

export function listenerOn(url: string, options: Partial<ListenerOptions> = {}): Watched {
  const watched: Watched = {
    ...{ heard: [], events: [], reasons: [], causes: [], resyncs: 0, losses: 0 },
    listener: createListener({
      url,
      applicationName: 'listener-test',
      channel: 'pullgate_wake',
      // Back-off without its randomness.
      clock: { ...systemClock, random: () => 0.1 },
      emit(event) {
        watched.events.push(event.type)
        if (event.type !== 'listener lost') return
        watched.reasons.push(event.reason)
        watched.causes.push(event.cause)
      },
      onNotification: (payload) => watched.heard.push(payload),
      onListening: () => (watched.resyncs += 1),
      onLost: () => (watched.losses += 1),
      ...options,
    }),
  }
  onTestFinished(() => watched.listener.close())
  return watched
}
