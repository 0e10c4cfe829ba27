import { once } from 'node:events'
import { GatewayError } from '../../domain/errors.ts'
import type { ErrorCode } from '../../domain/errors.ts'
import type { PullOutcome, Subscription } from '../../domain/types.ts'
import { Waiter } from '../../dispatch/waiter.ts'
import type { Answer } from '../../dispatch/waiter.ts'
import { headerOf, isOver } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { isReachable } from '../hand-over.ts'
import { badKey } from '../idempotency-key.ts'
import { ended, found, subscriptionId } from '../lookup.ts'
import { asGatewayError } from '../problem.ts'
import { createPullKeys, pullKeyOf, refuseIfSuperseded, superseded } from '../pull-keys.ts'
import type { Place } from '../pull-keys.ts'
import { defineRoute } from '../route.ts'
import type { Route } from '../route.ts'
import { pullBody, pulledBatch, pulledJob, pullHeaders, pullQuery } from '../schemas.ts'
import type { Services } from '../services.ts'
import { waitOf } from '../wait.ts'
import { hasSettles, settleAll } from './piggyback.ts'
import { createPullAnswers } from './pull-answers.ts'
import type { Pull } from './pull-answers.ts'

/** How a pull that is refused is counted, where not as rejected. */
const outcomes: Partial<Record<ErrorCode, PullOutcome>> = { draining: 'draining', superseded: 'superseded' }

/** Up to a tenth of the wait is taken off, so that a fleet that was parked at once does not come back at once. */
const jitterPart = 0.1

/** PATCH /subscriptions/{id}: settle, admit, park, answer. */
export function pullRoute(services: Services): Route {
  const { directory, dispatcher, replays, clock } = services
  const answers = createPullAnswers(services)
  const keys = createPullKeys()

  class ParkedPull extends Waiter {
    readonly pull: Pull

    constructor(pull: Pull, subscription: Subscription) {
      super(subscription, pull.max, pull.key)
      this.pull = pull
    }

    override isLive(): boolean {
      return isReachable(this.pull.exchange)
    }

    override answer(answer: Answer): void {
      answers.respond(this.pull, this.subscription, answer)
    }

    closed(): void {
      if (dispatcher.leave(this)) answers.abort(this.pull)
    }

    /** What a claim under way brings it goes to its successor, if that is parked by then, else back. */
    supersede(): void {
      if (dispatcher.leave(this)) answers.refuse(this.pull, superseded(), 'superseded')
    }
  }

  /** Throws unless the pull may be parked. Settles were committed before, so nothing of them is refused here. */
  function admit({ id, maxParked }: Subscription): void {
    if (services.isDraining()) {
      throw new GatewayError('draining', { retryAfterSeconds: 1, headers: { Connection: 'close' } })
    }
    const retryAfterSeconds = 1 + Math.floor(clock.random() * 5)
    if (dispatcher.parked >= services.parkedMax) {
      throw new GatewayError('overloaded', {
        detail: `${services.parkedMax} pulls are parked here (PULLGATE_MAX_PARKED)`,
        retryAfterSeconds,
      })
    }
    if (maxParked !== null && dispatcher.parkedFor(id) >= maxParked) {
      throw new GatewayError('too-many-parked', {
        detail: `${maxParked} pulls of this subscription are parked here (its maxParked)`,
        retryAfterSeconds,
      })
    }
  }

  /** Answers a pull that comes again with its key, or parks it. It always looks: the earlier may have been elsewhere. */
  async function repeat(
    pull: Pull,
    place: Place,
    subscription: Subscription,
    waitSeconds: number,
  ): Promise<void> {
    if (subscription.ack !== 'explicit') throw needsLeases()
    refuseIfSuperseded(place)
    const wokenAt = clock.now()
    const jobs = await replays.giveAgain(place.key, subscription, pull.max)
    // Its successor has come since, and looks later.
    refuseIfSuperseded(place)
    if (isOver(pull.exchange)) answers.abort(pull)
    else if (jobs.length > 0) answers.respond(pull, subscription, { kind: 'jobs', jobs, wokenAt })
    else place.parked = park(pull, subscription, waitSeconds)
  }

  function park(pull: Pull, subscription: Subscription, waitSeconds: number): ParkedPull {
    admit(subscription)
    const { exchange } = pull
    const waiter = new ParkedPull(pull, subscription)
    exchange.held = waiter
    const waitMs = waitSeconds * 1000 * (1 - clock.random() * jitterPart)
    // The wait counts from arrival, what was done since included.
    const leftMs = waitSeconds === 0 ? 0 : Math.max(1, waitMs - (clock.now() - exchange.arrivedAt))
    dispatcher.park(waiter, leftMs)
    return waiter
  }

  return defineRoute({
    method: 'patch',
    path: '/subscriptions/{id}',
    hot: true,
    summary:
      'Pull: held open until a job is there or the wait ends. Settles in the body commit first (with ?max)',
    query: pullQuery,
    headers: pullHeaders,
    body: pullBody,
    bodyOptional: true,
    responses: {
      200: { description: 'A job; with ?max a batch', schema: pulledJob.or(pulledBatch) },
      204: { description: 'The wait ended without a job' },
    },
    async handle({ exchange, params, query, body, bodyText }) {
      const id = subscriptionId(params.id)
      const settling = hasSettles(body)
      if (settling && query.max === undefined) {
        const fields = [{ field: 'max', message: 'is needed with settles in the body: ?max=1 to 100' }]
        throw new GatewayError('invalid-request', { detail: `max: ${fields[0]?.message ?? ''}`, fields })
      }
      const key = pullKeyOf(exchange, id)
      const place = key === undefined ? undefined : keys.take(key, exchange)
      const settled = settling ? await settleAll(services, body, bodyText) : undefined
      const { seconds, applied } = waitOf(headerOf(exchange.req, 'prefer'), query.wait, services.wait)
      const pull: Pull = {
        exchange,
        subscription: id,
        batch: query.max !== undefined,
        max: query.max ?? 1,
        key,
        settled,
        headers: applied === undefined ? undefined : { 'Preference-Applied': applied },
      }
      try {
        const subscription = found(await directory.find(id))
        if (subscription.endedAt !== null) throw ended()
        if (exchange.socket === null) await headOfPipeline(exchange)
        const refused = settled?.some((one) => one.status !== 200) ?? false
        const waitSeconds = refused ? 0 : seconds
        // Its 'close' has been: nothing would take a waiter out again.
        if (isOver(exchange)) answers.abort(pull)
        else if (place === undefined) park(pull, subscription, waitSeconds)
        else await repeat(pull, place, subscription, waitSeconds)
      } catch (error) {
        answers.refuse(pull, error, outcomes[asGatewayError(error).code] ?? 'rejected')
      }
      return undefined
    },
  })
}

function needsLeases(): GatewayError {
  return badKey('needs a subscription with "ack": "explicit": without a lease a job cannot be given again')
}

/** A request pipelined behind another on its connection gets nothing before that one is answered. */
async function headOfPipeline(exchange: Exchange): Promise<void> {
  const { socket } = exchange.req
  const gone = new AbortController()
  const close = () => gone.abort()
  socket.once('close', close)
  try {
    await once(exchange, 'socket', { signal: gone.signal })
  } catch {
    // The connection is gone: whoever is parked with a dead socket is passed over.
  } finally {
    socket.off('close', close)
  }
}
