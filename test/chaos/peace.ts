import type { Fault } from './faults.ts'
import type { OnLost } from './history.ts'
import { gatewayCount } from './plan.ts'
import type { ExecutorPlan, PublishPlan, RoundPlan } from './plan.ts'

/**
 * When the fire has stopped. Under it something ails every gateway at almost any time, so that the checker has to excuse
 * what it sees; here it excuses nothing. At each gateway, on topics of their own:
 *
 * - A pull waits, and long after, when its topic is armed and no publisher is left that could have published in silence,
 *   a job comes. Only its notification tells of it.
 * - A pull with a key is cut off amid its answer, and comes again at the next gateway.
 * - An answer that would be its own acknowledgement is not read, and its connection is reset.
 */
export function planPeace(): RoundPlan[] {
  const scene = (
    round: number,
    gateway: number,
    publishAfterMs: number,
    executor: Partial<ExecutorPlan>,
  ): RoundPlan => ({
    ...quietRound(round, gateway, { publishAfterMs, onLost: 'orphan' }),
    executors: [{ ...honest, ...executor, name: `peace${round}`, gateway }],
  })
  const link = { action: 'rst', afterBytes: 200, afterMs: 0 } as const
  const unread = { reading: 'never', break: { by: 'rst', when: 'first byte', afterMs: 200 } } as const
  return Array.from({ length: gatewayCount }, (_, gateway) => [
    scene(-1 - 3 * gateway, gateway, 2_500, {}),
    scene(-2 - 3 * gateway, gateway, 1_000, { keyed: true, link }),
    scene(-3 - 3 * gateway, gateway, 1_000, { ack: 'auto', ...unread }),
  ]).flat()
}

/**
 * After that, with nothing else amiss: a claim is under way whose executor leaves, while one gateway is killed, another
 * loses replies, and the third has them late. What was claimed has to be in another's hand before its hold ends by itself.
 */
export function planLosses(): RoundPlan[] {
  const [killed = 0, deaf = 0, slow = 0] = Array.from({ length: gatewayCount }, (_, gateway) => gateway)
  const auto = { ack: 'auto', stayMs: 1_200 } as const
  // The notification is 400 ms late, and after it the claim's reply.
  const leaving = { stayMs: 2_000, break: { by: 'fin', when: 'parked', afterMs: 900 } } as const
  const loss = (
    round: number,
    fault: Fault,
    gateway: number,
    { publishAfterMs, taker }: { readonly publishAfterMs: number; readonly taker: Partial<ExecutorPlan> },
  ): RoundPlan => ({
    ...quietRound(round, gateway, { publishAfterMs, onLost: 'requeue' }),
    ...{ fault, faultAtMs: 250, faultMs: 2_400 },
    executors: [
      { ...honest, ...taker, name: `taker${round}`, gateway },
      { ...honest, name: `heir${round}`, gateway: slow, startMs: 2_000, stayMs: 11_000 },
    ],
  })
  return [
    loss(-101, 'gateway killed during the claim', killed, { publishAfterMs: 600, taker: auto }),
    loss(-102, 'database replies lost', deaf, { publishAfterMs: 600, taker: auto }),
    loss(-103, 'gone during the claim', slow, { publishAfterMs: 400, taker: leaving }),
  ]
}

/** A gateway is drained beside a parked pull, and a job comes amid the drain: another has to hand it out. */
export function planDrain(): RoundPlan {
  const [drained, other] = [0, 1]
  return {
    ...quietRound(-201, drained, { publishAfterMs: 2_500, onLost: 'orphan' }),
    ...{ fault: 'gateway drained', faultAtMs: 500 },
    executors: [
      { ...honest, name: 'parked', gateway: drained },
      { ...honest, name: 'other', gateway: other, startMs: 4_500 },
    ],
  }
}

const honest: Omit<ExecutorPlan, 'name' | 'gateway'> = {
  ...{
    process: 0,
    ack: 'explicit',
    solo: true,
    leaseSeconds: 10,
    offerSeconds: null,
    keyed: false,
    max: null,
  },
  // After the job it is more than the checker allows for.
  ...{ startMs: 0, stayMs: 8_000, reading: 'normal', link: null, break: null, work: ['complete'] },
  ...{ piggyback: false, leavesAfter: 1 },
}

function quietRound(
  round: number,
  gateway: number,
  { publishAfterMs, onLost }: { readonly publishAfterMs: number; readonly onLost: OnLost },
): Omit<RoundPlan, 'executors'> {
  const publisher: PublishPlan = {
    ...{ startMs: publishAfterMs, pauseMs: 0, rollback: false },
    jobs: [
      {
        ...{ key: `peace${round}`, onLost, maxAttempts: 5, delayMs: 0, priority: 0 },
        ...{ dedupeKey: null, specBytes: 20, filling: 'x', expiresMs: null },
      },
    ],
  }
  return {
    ...{ round, fault: 'none', faultAtMs: 0, faultMs: 0, quiet: true, late: false, busyTopic: 0, gateway },
    ...{ process: 0, publishers: [publisher], person: null, statistics: null, heavy: false },
  }
}
