import { createRandom } from '../support/random.ts'

/** What Postgres is like around the rounds, from the seed and a number alone: nothing of it may make a difference. */

/** What the planner believes of the tables, whatever is in them. */
export const statistics = ['true', 'none', 'emptied', 'one row', 'huge'] as const
export type Statistics = (typeof statistics)[number]

export type Surroundings = {
  /** Settings of the database, which every session of the epoch begins with. */
  readonly session: Readonly<Record<string, string>>
  readonly statistics: Statistics
}

/** Ways to write instants: in the first no ISO parser reads them, in the second they come back as others. */
const dateStyles: readonly Readonly<Record<string, string>>[] = [
  {},
  { datestyle: 'German, DMY' },
  { datestyle: 'SQL, DMY', timezone: 'Asia/Shanghai' },
]

/** Decisions of their own, so that those of the rounds stay as they are. */
function randomOf(seed: number, number: number, purpose: number) {
  const random = createRandom((seed ^ purpose ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0)
  for (let n = 0; n < 8; n += 1) random.below(2)
  return random
}

export function planSurroundings(seed: number, epoch: number, odd: boolean): Surroundings {
  const random = randomOf(seed, epoch, 0x5e55)
  const believed = random.pick(statistics)
  const session = {
    ...random.pick(dateStyles),
    ...(random.chance(0.4) ? { default_transaction_isolation: 'serializable' } : {}),
    ...(random.chance(0.4) ? { array_nulls: 'off' } : {}),
    ...(random.chance(0.4) ? { idle_session_timeout: '2s' } : {}),
  }
  return { session: odd ? session : {}, statistics: believed }
}

export type Extras = {
  /** The planner is told this when the round begins. */
  readonly statistics: Statistics | null
  /** Every spec of the round is about as large as they may be. */
  readonly heavy: boolean
}

// A heavy round moves some megabytes, so there are few.
const heavyShare = 0.02
const tellShare = 0.04

export function planExtras(seed: number, round: number): Extras {
  const random = randomOf(seed, round, 0xe47a)
  return {
    heavy: random.chance(heavyShare),
    statistics: random.chance(tellShare) ? random.pick(statistics) : null,
  }
}

/** What the spec of a heavy round is filled with: 1, 2, 3 and 4 bytes in UTF-8, and what JSON escapes. */
export const fillings = ['x', 'é', '\u2028', '😀', '\\', '"'] as const
// The default of job_spec_max_bytes, less what is around the filling.
const specMaxBytes = 1_048_576 - 200

export function planHeavySpec(
  seed: number,
  round: number,
  job: number,
): { specBytes: number; filling: string } {
  const random = randomOf(seed, round * 16 + job, 0xb17e)
  return { specBytes: specMaxBytes - random.below(500_000), filling: random.pick(fillings) }
}
