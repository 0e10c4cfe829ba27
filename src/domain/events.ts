import type { JobState } from './job-states.ts'
import type {
  ListenerLossCause,
  PullOutcome,
  ReturnReason,
  SettleStatus,
  SettleVerb,
  Subscription,
  WakeCause,
} from './types.ts'

/**
 * Everything noteworthy that a gateway does, as one closed union. Call sites only say what happened; the logger and
 * the metrics (src/telemetry) each decide what to show. No event carries a job spec, a lease or a token.
 */
export type GatewayEvent =
  | {
      readonly type: 'started'
      readonly url: string
      readonly adminUrl: string
      readonly revision: number
      readonly seconds: number
    }
  /** Nobody can be served yet: the start goes on when it answers. */
  | { readonly type: 'database awaited'; readonly reason: string }
  | { readonly type: 'stopping'; readonly reason: string }
  | { readonly type: 'stopped'; readonly seconds: number }
  | { readonly type: 'stop step failed'; readonly step: string; readonly error: Error }
  | { readonly type: 'wake'; readonly cause: WakeCause }
  | {
      readonly type: 'claim'
      readonly cause: WakeCause
      readonly topic: string
      readonly jobs: number
      readonly seconds: number
    }
  | { readonly type: 'claim failed'; readonly topic: string; readonly seconds: number; readonly error: Error }
  | { readonly type: 'job claimed'; readonly topic: string; readonly readySeconds: number }
  | {
      readonly type: 'pull ended'
      readonly outcome: PullOutcome
      readonly waitSeconds: number
      readonly jobs: number
      readonly subscription: string
    }
  /**
   * A pull was given jobs through a proxy; `first` of this acknowledgement here. A proxy may hide that the client has left:
   * then an automatic acknowledgement confirms what nobody got.
   */
  | { readonly type: 'proxied pull'; readonly ack: Subscription['ack']; readonly first: boolean }
  /** From the hint that made the gateway claim to the response in the hands of the operating system. */
  | { readonly type: 'response written'; readonly wakeSeconds: number }
  | {
      readonly type: 'delivery'
      readonly outcome: 'confirmed' | 'undelivered' | 'in doubt'
      readonly jobs: number
    }
  | { readonly type: 'jobs returned'; readonly reason: ReturnReason; readonly jobs: number }
  /** Gateways whose session had ended, as their ids. */
  | { readonly type: 'gateways buried'; readonly gateways: readonly number[]; readonly jobs: number }
  /** The session that listens has this id as a gateway. */
  | { readonly type: 'gateway joined'; readonly gateway: number }
  | { readonly type: 'delivery report failed'; readonly dropped: number; readonly error: Error }
  | { readonly type: 'settle'; readonly verb: SettleVerb; readonly status: SettleStatus }
  /** By statements of this gateway, whatever they were for. */
  | { readonly type: 'jobs ended'; readonly topic: string; readonly state: JobState; readonly jobs: number }
  | { readonly type: 'heartbeat'; readonly status: SettleStatus }
  | { readonly type: 'published'; readonly jobs: number }
  | {
      readonly type: 'due'
      readonly promoted: number
      readonly expired: number
      readonly leasesLost: Readonly<Record<string, number>>
      readonly offersEnded: Readonly<Record<string, number>>
    }
  /** They were behind the rows. */
  | { readonly type: 'sequences mended'; readonly sequences: readonly string[] }
  | {
      readonly type: 'problem found'
      readonly problem: string
      readonly things: number
      readonly detail: string
    }
  | { readonly type: 'upkeep failed'; readonly task: string; readonly error: Error }
  | { readonly type: 'notification'; readonly result: 'woke' | 'idle' | 'invalid' }
  | { readonly type: 'listener connected' }
  | { readonly type: 'listener lost'; readonly cause: ListenerLossCause; readonly reason: string }
  | { readonly type: 'listener heartbeat'; readonly seconds: number }
  | { readonly type: 'database error'; readonly sqlState: string; readonly error: Error }
  | {
      readonly type: 'request'
      readonly route: string
      readonly method: string
      readonly status: number
      readonly seconds: number
      /** Its time is a wait, which is no latency. */
      readonly held: boolean
      readonly id: string
    }
  | { readonly type: 'request failed'; readonly route: string; readonly id: string; readonly error: Error }

export type Emit = (event: GatewayEvent) => void
