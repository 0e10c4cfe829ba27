import { createRandom } from '../support/random.ts'
import type { Random } from '../support/random.ts'
import { amidClaim, connectionFaults, faults, faultWeights } from './faults.ts'
import type { Fault } from './faults.ts'
import { onLosts } from './history.ts'
import type { Ack, OnLost } from './history.ts'
import { planExtras, planHeavySpec } from './surroundings.ts'
import type { Extras } from './surroundings.ts'

/** What a round is, from the seed and its number alone. Only how fast the processes are is not in it. */

export const gatewayCount = 3
export const processCount = 3
/** Rounds share these topics, so that executors of different rounds and gateways compete for jobs. */
export const busyTopics = 8

export type JobPlan = {
  readonly key: string
  readonly onLost: OnLost
  readonly maxAttempts: number
  readonly delayMs: number
  readonly priority: number
  readonly dedupeKey: string | null
  readonly specBytes: number
  /** One character, of which the spec is full. */
  readonly filling: string
  readonly expiresMs: number | null
}

export type PublishPlan = {
  readonly startMs: number
  readonly pauseMs: number
  readonly rollback: boolean
  readonly jobs: readonly JobPlan[]
}

/** What an executor does with a job that it got. Those of automatic acknowledgement only run it. */
export const works = [
  'complete',
  'complete twice',
  'fail',
  'fail for good',
  'release',
  'release, then complete',
  'hold',
  'vanish',
  'late',
] as const
export type Work = (typeof works)[number]

/** What the proxy does to a connection once so many bytes of answers have passed. */
export type Link = {
  readonly action: 'swallow' | 'rst' | 'fin' | 'delay'
  readonly afterBytes: number
  readonly afterMs: number
}

export type Break = {
  readonly by: 'fin' | 'rst'
  /** So many ms after the pull was sent, the first byte arrived, or the answer was complete. */
  readonly when: 'parked' | 'first byte' | 'answered'
  readonly afterMs: number
}

const moments = ['parked', 'first byte', 'answered'] as const

export type ExecutorPlan = {
  readonly name: string
  readonly process: number
  readonly gateway: number
  readonly ack: Ack
  /** Its own subscription; else it shares that of its topic. */
  readonly solo: boolean
  readonly leaseSeconds: number
  /** Jobs are only offered to it: it accepts each before it starts. Null: they are leased at once. */
  readonly offerSeconds: number | null
  /** Its pulls bear keys: one whose answer broke is sent again, to the next gateway. */
  readonly keyed: boolean
  readonly max: number | null
  readonly startMs: number
  readonly stayMs: number
  readonly reading: 'normal' | 'never' | 'slow'
  readonly link: Link | null
  readonly break: Break | null
  readonly work: readonly Work[]
  readonly piggyback: boolean
  /** It leaves with so many jobs, or when its connection breaks; null: it goes on. */
  readonly leavesAfter: number | null
}

export type RoundPlan = {
  readonly round: number
  readonly fault: Fault
  /** For faults of processes: when, and for how long. */
  readonly faultAtMs: number
  readonly faultMs: number
  /** On its own topic, which nobody else wakes. */
  readonly quiet: boolean
  /** The second of two publishers commits long after a later one's job was claimed. */
  readonly late: boolean
  readonly busyTopic: number
  readonly gateway: number
  readonly process: number
  readonly publishers: readonly PublishPlan[]
  readonly executors: readonly ExecutorPlan[]
  readonly person: {
    readonly verb: 'cancel' | 'retry'
    readonly afterMs: number
    readonly job: number
  } | null
} & Extras

const workWeights: Record<Work, number> = {
  complete: 45,
  'complete twice': 8,
  fail: 10,
  'fail for good': 3,
  release: 8,
  'release, then complete': 6,
  hold: 8,
  vanish: 8,
  late: 4,
}

function weighted<T extends string>(
  random: Random,
  weights: Readonly<Record<T, number>>,
  of: readonly T[],
): T {
  const total = of.reduce((sum, one) => sum + weights[one], 0)
  let left = random.below(total)
  for (const one of of) {
    left -= weights[one]
    if (left < 0) return one
  }
  throw new Error('the weights do not add up')
}

export function planRound(seed: number, round: number): RoundPlan {
  const random = createRandom((seed ^ Math.imul(round + 1, 0x9e3779b1)) >>> 0)
  // The first numbers of neighbouring seeds are alike.
  for (let n = 0; n < 8; n += 1) random.below(2)
  const fault = weighted(random, faultWeights, faults)
  const quiet =
    amidClaim.includes(fault) || fault === 'unread, then rst' || (fault === 'none' && random.chance(0.5))
  const late = quiet && fault === 'none' && random.chance(0.4)
  const gateway = random.below(gatewayCount)
  const process = random.below(processCount)
  const common = { round, fault, quiet, late, gateway, process, busyTopic: random.below(busyTopics) }
  const executors = Array.from({ length: quiet ? 1 : 1 + random.below(3) }, (_, n) =>
    planExecutor(random, n === 0 ? fault : 'none', { ...common, name: `r${round}e${n}` }),
  )
  const extras = planExtras(seed, round)
  return {
    ...common,
    ...extras,
    faultAtMs: random.below(900),
    faultMs: 200 + random.below(fault === 'gateway stopped' && random.chance(0.03) ? 17_000 : 2_000),
    publishers: planPublishers(random, common).map((one, publisher) =>
      extras.heavy ? withHeavySpecs(one, seed, round, publisher) : one,
    ),
    executors,
    person:
      !quiet && random.chance(0.12)
        ? {
            verb: random.pick(['cancel', 'retry'] as const),
            afterMs: random.below(900),
            job: random.below(4),
          }
        : null,
  }
}

function planPublishers(
  random: Random,
  { round, quiet, late, fault }: Pick<RoundPlan, 'round' | 'quiet' | 'late' | 'fault'>,
) {
  const onLost = random.pick(onLosts)
  // A patient executor's topic is armed, and its fence closed, when its job comes: only the notification tells of it.
  const quietMs = fault === 'none' ? 1_400 : 350
  return Array.from({ length: late ? 2 : quiet ? 1 : 1 + random.below(2) }, (_, publisher): PublishPlan => {
    const pauses = !quiet && random.chance(0.2)
    return {
      // After the executors of a quiet round have parked, and the topic has been found empty and armed.
      startMs: late ? 300 + 100 * publisher : quiet ? quietMs + random.below(300) : random.below(400),
      pauseMs: late && publisher === 0 ? 900 : pauses ? 100 + random.below(700) : 0,
      rollback: !quiet && random.chance(0.15),
      jobs: Array.from({ length: quiet ? 1 : 1 + random.below(3) }, (_, job): JobPlan => {
        const large = fault === 'slow reader' || random.chance(0.03)
        return {
          key: `r${round}p${publisher}j${job}`,
          onLost: random.chance(0.7) ? onLost : 'requeue',
          maxAttempts: random.pick([1, 2, 3, 5]),
          delayMs: !quiet && random.chance(0.2) ? 50 + random.below(1_500) : 0,
          priority: random.chance(0.2) ? random.below(5) - 2 : 0,
          dedupeKey: !quiet && random.chance(0.1) ? `d${Math.floor(round / 8)}` : null,
          filling: 'x',
          specBytes: large ? 300_000 + random.below(600_000) : 20 + random.below(400),
          expiresMs: !quiet && random.chance(0.03) ? 300 + random.below(3_000) : null,
        }
      }),
    }
  })
}

function withHeavySpecs(plan: PublishPlan, seed: number, round: number, publisher: number): PublishPlan {
  const jobs = plan.jobs.map((job, n) => ({ ...job, ...planHeavySpec(seed, round, publisher * 8 + n) }))
  return { ...plan, jobs }
}

function planExecutor(
  random: Random,
  fault: Fault,
  {
    name,
    quiet,
    late,
    gateway,
    process,
    fault: ofRound,
  }: Pick<RoundPlan, 'quiet' | 'late' | 'gateway' | 'process' | 'fault'> & {
    readonly name: string
  },
): ExecutorPlan {
  const target = fault !== 'none'
  // Those that a fault of a process is meant for are at that process.
  const aimed = target || (!connectionFaults.includes(ofRound) && random.chance(0.7))
  const patient = quiet && fault === 'none'
  const ack = random.chance(0.45) ? 'auto' : 'explicit'
  const offers = ack === 'explicit' && random.chance(0.4)
  return {
    name,
    process: aimed ? process : random.below(processCount),
    gateway: aimed ? gateway : random.below(gatewayCount),
    ack,
    // A subscription that others share is of one kind.
    solo: quiet || offers || random.chance(0.1),
    leaseSeconds: 10 + random.below(2),
    offerSeconds: offers ? 5 : null,
    keyed: ack === 'explicit' && random.chance(0.6),
    max: !quiet && random.chance(0.35) ? 1 + random.below(5) : null,
    startMs: quiet ? 0 : random.below(300),
    stayMs: patient ? 8_000 : amidClaim.includes(fault) ? 2_000 : 800 + random.below(1_200),
    reading: fault === 'unread, then rst' ? 'never' : fault === 'slow reader' ? 'slow' : 'normal',
    link: linkOf(random, fault),
    break: breakOf(random, fault),
    work: late ? ['complete'] : Array.from({ length: 4 }, () => weighted(random, workWeights, works)),
    piggyback: random.chance(0.5),
    leavesAfter: late ? 2 : quiet ? 1 : null,
  }
}

function linkOf(random: Random, fault: Fault): Link | null {
  const action = (
    {
      'link swallows': 'swallow',
      'link rst': 'rst',
      'link fin': 'fin',
      'link delays': 'delay',
    } as const
  )[fault as string]
  if (action === undefined) return null
  if (action === 'delay') return { action, afterBytes: 0, afterMs: 20 + random.below(300) }
  // Before an answer, amid the first one, or some answers later.
  return random.chance(0.3)
    ? { action, afterBytes: -1, afterMs: random.below(1_200) }
    : { action, afterBytes: random.pick([0, 1, 60, 200, 350, 500, 900]), afterMs: 0 }
}

function breakOf(random: Random, fault: Fault): Break | null {
  const either = () => random.pick(['fin', 'rst'] as const)
  const moment = () => {
    const when = random.pick(moments)
    // A small answer comes as a whole: whoever breaks off amid one does so at once.
    return { when, afterMs: when === 'first byte' ? 0 : random.below(700) }
  }
  const breaks: Partial<Record<Fault, () => Break>> = {
    'client fin': () => ({ by: 'fin', ...moment() }),
    'client rst': () => ({ by: 'rst', ...moment() }),
    'unread, then rst': () => ({ by: 'rst', when: 'first byte', afterMs: random.below(500) }),
    // The notification takes 400 ms longer, and the claim's reply as long again.
    'gone during the claim': () => ({ by: either(), when: 'parked', afterMs: 800 + random.below(500) }),
  }
  return breaks[fault]?.() ?? null
}
