import { gatewayCount } from './plan.ts'
import type { ExecutorPlan, RoundPlan } from './plan.ts'

/**
 * When the fire has stopped. Under it something ails every gateway at almost any time, so that the checker has to excuse
 * what it sees; here it excuses nothing. At each gateway, on topics of their own:
 *
 * - A pull waits, and long after, when its topic is armed and no publisher is left that could have published in silence,
 *   a job comes. Only its notification tells of it.
 * - A pull with a key is cut off amid its answer, and comes again at the next gateway.
 */
export function planPeace(): RoundPlan[] {
  return Array.from({ length: gatewayCount }, (_, gateway) => [
    peaceful(-1 - 2 * gateway, gateway, { publishAfterMs: 2_500, keyed: false, link: null }),
    peaceful(-2 - 2 * gateway, gateway, {
      ...{ publishAfterMs: 1_000, keyed: true, link: { action: 'rst', afterBytes: 200, afterMs: 0 } },
    }),
  ]).flat()
}

// After the job it is more than the checker allows for.
const stayMs = 8_000

function peaceful(
  round: number,
  gateway: number,
  { publishAfterMs, keyed, link }: Pick<ExecutorPlan, 'keyed' | 'link'> & { readonly publishAfterMs: number },
): RoundPlan {
  const name = `peace${round}`
  return {
    ...{ round, fault: 'none', faultAtMs: 0, faultMs: 0, quiet: true, late: false, busyTopic: 0, gateway },
    process: 0,
    publishers: [
      {
        ...{ startMs: publishAfterMs, pauseMs: 0, rollback: false },
        jobs: [
          {
            ...{ key: name, onLost: 'orphan', maxAttempts: 5, delayMs: 0, priority: 0 },
            ...{ dedupeKey: null, specBytes: 20, expiresMs: null },
          },
        ],
      },
    ],
    executors: [
      {
        ...{ name, process: 0, gateway, ack: 'explicit', solo: true, leaseSeconds: 10, offerSeconds: null },
        ...{ keyed, max: null, startMs: 0, stayMs, reading: 'normal', link, break: null },
        ...{ work: ['complete'], piggyback: false, leavesAfter: 1 },
      },
    ],
    person: null,
  }
}
