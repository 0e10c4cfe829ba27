import type { Clock } from '../domain/clock.ts'
import type { Emit } from '../domain/events.ts'
import type { QueueStore, ReplayStore, SettleStore, SubscriptionStore } from '../domain/ports.ts'
import type { TopicCounts } from '../domain/reads.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import type { HeldHeartbeats } from '../dispatch/held-heartbeats.ts'
import type { SubscriptionDirectory } from '../dispatch/subscription-directory.ts'
import type { HandOver } from './hand-over.ts'
import type { WaitLimits } from './wait.ts'

/** What the routes work with; src/app.ts joins it. */
export type Services = {
  readonly settles: SettleStore
  readonly subscriptions: SubscriptionStore
  readonly queue: QueueStore
  readonly replays: ReplayStore
  /** The last count of all topics, as the metrics show it. */
  readonly queueCounts: () =>
    { readonly takenAt: Date; readonly counts: (topic: string) => TopicCounts } | undefined
  readonly directory: SubscriptionDirectory
  readonly dispatcher: Dispatcher
  readonly heldHeartbeats: HeldHeartbeats
  readonly handOver: HandOver
  readonly clock: Clock
  readonly emit: Emit
  readonly wait: WaitLimits
  readonly parkedMax: number
  readonly isDraining: () => boolean
}
