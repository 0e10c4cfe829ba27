/** The states of a job and the steps between them. SQL carries them out; test/sql/job-states.test.ts holds it to this table. */

export const jobStates = [
  'scheduled',
  'ready',
  'offered',
  'running',
  'delivered',
  'orphaned',
  'succeeded',
  'failed',
  'cancelled',
  'expired',
] as const

export type JobState = (typeof jobStates)[number]

/**
 * What can happen to a job. `lost`: its lease or offer ended, or its hand-over is in doubt. A heartbeat accepts an offer.
 * `set aside`: the database refuses to change the row, as when its data are corrupted.
 */
export const jobEvents = [
  'due',
  'claim',
  'give back',
  'confirm',
  'heartbeat',
  'complete',
  'fail',
  'release',
  'lost',
  'expire',
  'cancel',
  'retry',
  'set aside',
] as const

export type JobEvent = (typeof jobEvents)[number]

type Steps = Readonly<Record<JobState, Readonly<Partial<Record<JobEvent, readonly JobState[]>>>>>

/**
 * The states that an event may lead to; an event that is not listed changes nothing. Where there are several, what
 * decides is: whether the subscription has offerSeconds (`claim`), attempts left (`fail`, `lost`), offers left (`lost` of
 * an offer), on_lost (`lost`), an asked-for delay (`fail`, `release`), a cancel that waits for the executor (`fail`,
 * `release`, `lost`).
 *
 * A job that went back to `ready` or to `orphaned` because its lease or offer ended still answers to that lease: hence
 * `heartbeat`, `confirm`, `give back`, `complete`, `fail` and `release` there.
 */
export const jobSteps: Steps = {
  scheduled: {
    due: ['ready'],
    complete: ['succeeded'],
    fail: ['failed'],
    expire: ['expired'],
    cancel: ['cancelled'],
    'set aside': ['orphaned'],
  },
  ready: {
    claim: ['offered', 'running'],
    'give back': ['ready'],
    confirm: ['delivered'],
    heartbeat: ['running'],
    complete: ['succeeded'],
    fail: ['scheduled', 'failed'],
    release: ['scheduled'],
    expire: ['expired'],
    cancel: ['cancelled'],
    'set aside': ['orphaned'],
  },
  offered: {
    'give back': ['ready'],
    heartbeat: ['running'],
    complete: ['succeeded'],
    fail: ['scheduled', 'ready', 'failed'],
    release: ['ready', 'scheduled'],
    lost: ['ready', 'failed'],
    cancel: ['cancelled'],
    'set aside': ['orphaned'],
  },
  running: {
    'give back': ['ready', 'cancelled'],
    confirm: ['delivered'],
    complete: ['succeeded'],
    fail: ['scheduled', 'ready', 'failed', 'cancelled'],
    release: ['ready', 'scheduled', 'cancelled'],
    lost: ['ready', 'orphaned', 'failed', 'cancelled'],
    'set aside': ['orphaned'],
  },
  // Only one that still has its dedupe key can be set aside: the others are in history.
  delivered: { complete: ['succeeded'], fail: ['failed'], cancel: ['cancelled'], 'set aside': ['orphaned'] },
  orphaned: {
    confirm: ['delivered'],
    heartbeat: ['running'],
    complete: ['succeeded'],
    'give back': ['ready', 'cancelled'],
    fail: ['scheduled', 'ready', 'failed', 'cancelled'],
    release: ['ready', 'scheduled', 'cancelled'],
    cancel: ['cancelled'],
    retry: ['ready'],
    'set aside': ['orphaned'],
  },
  succeeded: {},
  failed: { retry: ['ready'] },
  cancelled: { retry: ['ready'] },
  expired: { retry: ['ready'] },
}

/** States in which nothing happens to a job any more, unless a person retries it. */
export const finalStates: readonly JobState[] = ['succeeded', 'failed', 'delivered', 'cancelled', 'expired']
