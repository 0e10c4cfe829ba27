import type { Beat, LeaseNow } from '../../domain/ports.ts'
import type { JobId, Lease } from '../../domain/types.ts'
import type { HeldHeartbeat } from '../../dispatch/held-heartbeats.ts'
import { headerOf, isOver } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { cutJson } from '../json-text.ts'
import { jobId, refuseUnlessOk } from '../lookup.ts'
import { defineRoute } from '../route.ts'
import type { Route } from '../route.ts'
import { heartbeatAnswer, heartbeatBody, noQuery, waitHeaders } from '../schemas.ts'
import type { Services } from '../services.ts'
import { waitOf } from '../wait.ts'

/** Of a lease: the next heartbeat comes in time, also if its answer is late. */
const heldPart = 3

/** POST /jobs/{id}/heartbeat: renew or accept, and, where Prefer asks for it, hold until there is a cancel to tell, or the lease is over. */
export function heartbeatRoute(services: Services): Route {
  const { settles, heldHeartbeats, clock, emit } = services

  async function beat(
    id: JobId,
    lease: Lease,
    seconds: number | null,
    progress: string | null,
  ): Promise<Beat> {
    const answer = await settles.heartbeat(id, lease, seconds, progress)
    emit({ type: 'heartbeat', status: answer.status })
    refuseUnlessOk(answer.status, id)
    return answer
  }

  /**
   * Resolves to what is to be answered: what `again` says once something was announced, else what is true at the end,
   * since the job may have been settled elsewhere. The look at the end renews nothing: whoever is to read the answer may
   * have died since, and a lease that is renewed ends later.
   */
  async function hold(
    exchange: Exchange,
    held: HeldHeartbeat,
    seconds: number,
    first: Beat,
    again: () => Promise<Beat>,
    look: () => Promise<LeaseNow | undefined>,
  ): Promise<Beat> {
    let answer = first
    while (answer.cancelReason === null && !isOver(exchange)) {
      exchange.held ??= { closed: () => held.close() }
      const leftMs = seconds * 1000 - (clock.now() - exchange.arrivedAt)
      const heard = await held.wait(leftMs)
      if (isOver(exchange)) break
      const now = heard === 'over' ? await look() : undefined
      if (now !== undefined) return { ...answer, ...now }
      // Whether it was a cancel, a settle or nothing is for the database to say.
      answer = await again()
      if (heard === 'over') break
    }
    return answer
  }

  return defineRoute({
    method: 'post',
    path: '/jobs/{id}/heartbeat',
    hot: true,
    summary:
      'Accept an offer or renew the lease, and hear of a cancel; every third of a lease. With Prefer: wait=N held, up to that third',
    query: noQuery,
    headers: waitHeaders,
    body: heartbeatBody,
    responses: { 200: { description: 'The lease now', schema: heartbeatAnswer } },
    async handle({ exchange, params, body, bodyText }) {
      const id = jobId(params.id)
      const { lease, leaseSeconds = null } = body
      const progress = cutJson(bodyText).get('progress') ?? null
      const prefer = headerOf(exchange.req, 'prefer')
      const asked = waitOf(prefer, undefined, { defaultSeconds: 0, maxSeconds: services.wait.maxSeconds })
      const held = asked.seconds > 0 ? heldHeartbeats.open(id) : undefined
      try {
        let answer = await beat(id, lease, leaseSeconds, progress)
        const seconds = Math.min(asked.seconds, Math.floor((answer.leaseSeconds ?? 0) / heldPart))
        if (held !== undefined) {
          const again = () => beat(id, lease, leaseSeconds, null)
          const look = () => settles.readLease(id, lease)
          answer = await hold(exchange, held, seconds, answer, again, look)
        }
        const { leaseEndsAt, cancelReason } = answer
        return {
          status: 200,
          body: {
            leaseExpiresAt: leaseEndsAt,
            cancel: cancelReason === null ? null : { reason: cancelReason },
          },
          headers: {
            ...(held === undefined ? {} : { 'Preference-Applied': `wait=${seconds}` }),
            ...(services.isDraining() ? { Connection: 'close' } : {}),
          },
        }
      } finally {
        held?.close()
      }
    },
  })
}
