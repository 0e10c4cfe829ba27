import type { JobState } from './job-states.ts'
import type { JobId, SubscriptionId } from './types.ts'

/** What people and monitors read. */

export type JobDetail = {
  readonly id: JobId
  readonly topic: string
  readonly state: JobState
  readonly pending: string | null
  readonly priority: number
  readonly attempts: number
  readonly maxAttempts: number
  readonly deliveries: number
  readonly onLost: string
  readonly dedupeKey: string | null
  readonly subscription: SubscriptionId | null
  readonly createdAt: Date
  readonly dueAt: Date
  readonly claimedAt: Date | null
  readonly finishedAt: Date | null
  readonly leaseExpiresAt: Date | null
  readonly expiresAt: Date | null
  readonly cancelReason: string | null
  readonly lastError: string | null
  /** JSON texts. */
  readonly progress: string | null
  readonly result: string | null
  readonly history: readonly unknown[]
}

export type Topic = {
  readonly name: string
  readonly paused: boolean
  readonly maxAttempts: number
  readonly onLost: string
}

export type TopicCounts = {
  readonly jobs: Readonly<Record<string, number>>
  readonly oldestReadySeconds: number | null
}

export type Snapshot = {
  readonly counts: readonly {
    readonly topic: string
    readonly state: string
    readonly jobs: number
    readonly oldestSeconds: number | null
  }[]
  readonly takenAt: Date
  /** How old the counts were when they were read. */
  readonly ageSeconds: number
  readonly durationSeconds: number
}
