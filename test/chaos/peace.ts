import { gatewayCount } from './plan.ts'
import type { RoundPlan } from './plan.ts'

/**
 * When the fire has stopped: at each gateway one pull waits on a topic of its own, and long after, when its topic is
 * armed and no publisher is left that could have published in silence, one job comes. Only its notification tells of it.
 * Under fire too much ails a gateway at any time for anyone to say what a job was found by.
 */

const publishAfterMs = 2_500
// More than the checker allows for, after the job.
const stayMs = 8_000

export function planPeace(): RoundPlan[] {
  return Array.from({ length: gatewayCount }, (_, gateway): RoundPlan => {
    const round = -1 - gateway
    return {
      ...{ round, fault: 'none', faultAtMs: 0, faultMs: 0, quiet: true, late: false, busyTopic: 0, gateway },
      process: 0,
      publishers: [
        {
          ...{ startMs: publishAfterMs, pauseMs: 0, rollback: false },
          jobs: [
            {
              ...{ key: `peace${gateway}`, onLost: 'requeue', maxAttempts: 5, delayMs: 0, priority: 0 },
              ...{ dedupeKey: null, specBytes: 20, expiresMs: null },
            },
          ],
        },
      ],
      executors: [
        {
          ...{ name: `peace${gateway}`, process: 0, gateway, ack: 'explicit', solo: true, leaseSeconds: 10 },
          ...{ offerSeconds: null, keyed: false, max: null, startMs: 0, stayMs, reading: 'normal' },
          ...{ link: null, break: null, work: ['complete'], piggyback: false, leavesAfter: 1 },
        },
      ],
      person: null,
    }
  })
}
