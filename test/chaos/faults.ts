/**
 * Every fault and how often a round draws it: shares of 1,000. Connections break far more often than processes end: a
 * restart costs a second, a reset nothing.
 */
export const faultWeights = {
  none: 186,
  'client fin': 90,
  'client rst': 110,
  'unread, then rst': 50,
  'slow reader': 20,
  'link swallows': 90,
  'link rst': 80,
  'link fin': 50,
  'link delays': 50,
  'gone during the claim': 50,
  'executor stopped': 30,
  'executor killed': 20,
  'gateway killed': 20,
  'gateway drained': 25,
  'gateway stopped': 20,
  'database link cut': 25,
  'database link swallows': 12,
  'database link delays': 30,
  'database replies lost': 20,
  'backend terminated': 30,
  'backends terminated': 12,
  'database restarted fast': 5,
  'database restarted immediately': 5,
} as const

export type Fault = keyof typeof faultWeights
export const faults = Object.keys(faultWeights) as Fault[]

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
