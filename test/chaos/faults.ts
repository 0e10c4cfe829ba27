/**
 * Every fault and how often a round draws it: shares of 1,000. Connections break far more often than processes end: a
 * restart costs a second, a reset nothing.
 */
export const faultWeights = {
  none: 191,
  'client fin': 120,
  'client rst': 150,
  'unread, then rst': 60,
  'slow reader': 20,
  'link swallows': 110,
  'link rst': 100,
  'link fin': 60,
  'link delays': 50,
  'gone during the claim': 36,
  'executor stopped': 16,
  'executor killed': 8,
  'gateway killed': 7,
  'gateway killed during the claim': 3,
  'gateway drained': 15,
  'gateway stopped': 7,
  'database link cut': 9,
  'database link swallows': 5,
  'database link delays': 9,
  'database replies lost': 6,
  'backend terminated': 10,
  'backends terminated': 4,
  'database restarted fast': 2,
  'database restarted immediately': 2,
} as const

export type Fault = keyof typeof faultWeights
export const faults = Object.keys(faultWeights) as Fault[]

/** The replies of Postgres stay away from before a job is published until something has ended. */
export const amidClaim: readonly Fault[] = ['gone during the claim', 'gateway killed during the claim']

/** Faults of the executor's connection or of how it reads; the others hit processes and the way to Postgres. */
export const connectionFaults: readonly Fault[] = [
  'none',
  'client fin',
  'client rst',
  'unread, then rst',
  'slow reader',
  'link swallows',
  'link rst',
  'link fin',
  'link delays',
  'gone during the claim',
]
