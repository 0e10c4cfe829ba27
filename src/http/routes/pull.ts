import { once } from 'node:events'
import type { Request, Response } from 'express'
import { GatewayError } from '../../domain/errors.ts'
import type { ClaimedJob, PullOutcome, Subscription } from '../../domain/types.ts'
import { createWaiter } from '../../dispatch/waiter.ts'
import type { Answer } from '../../dispatch/waiter.ts'
import { isReachable } from '../hand-over.ts'
import { ended, found, subscriptionId } from '../lookup.ts'
import { sendProblem, asGatewayError } from '../problem.ts'
import { defineRoute } from '../route.ts'
import type { Route } from '../route.ts'
import { pullBody, pulledBatch, pulledJob, pullQuery } from '../schemas.ts'
import type { Settled } from '../schemas.ts'
import type { Services } from '../services.ts'
import { waitOf } from '../wait.ts'
import { hasSettles, settleAll } from './piggyback.ts'

/** Up to a tenth of the wait is taken off, so that a fleet that was parked at once does not come back at once. */
const jitterPart = 0.1

type Pull = {
  readonly res: Response
  readonly arrivedAt: number
  readonly subscription: string
  readonly batch: boolean
  readonly max: number
  /** Undefined: the body had no settles. */
  readonly settled: readonly Settled[] | undefined
  readonly headers: Readonly<Record<string, string>>
}

/** PATCH /subscriptions/{id}: settle, admit, park, answer. */
export function pullRoute(services: Services): Route {
  const { directory, dispatcher, handOver, clock, emit } = services

  function end(pull: Pull, outcome: PullOutcome, jobs = 0): void {
    const waitSeconds = (clock.now() - pull.arrivedAt) / 1000
    emit({ type: 'pull ended', outcome, waitSeconds, jobs, subscription: pull.subscription })
  }

  function respond(pull: Pull, subscription: Subscription, answer: Answer): void {
    switch (answer.kind) {
      case 'jobs':
        return respondJobs(pull, subscription, answer.jobs, answer.wokenAt)
      case 'empty':
        return respondEmpty(pull, 'empty')
      case 'draining':
        pull.res.setHeader('Connection', 'close')
        return respondEmpty(pull, 'draining')
      case 'ended':
        directory.forget([subscription.id])
        return refuse(pull, ended(), 'ended')
      case 'error':
        return refuse(pull, asGatewayError(answer.error), 'error')
    }
  }

  function respondJobs(
    pull: Pull,
    { ack }: Subscription,
    jobs: readonly ClaimedJob[],
    wokenAt: number,
  ): void {
    const texts = jobs.map((job) => jobText(job, ack))
    const payload = pull.batch
      ? `{"jobs":[${texts.join(',')}],${batchTail(pull, jobs.length === pull.max)}}`
      : (texts[0] ?? '')
    pull.res.writeHead(200, {
      ...pull.headers,
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': Buffer.byteLength(payload),
    })
    end(pull, 'jobs', jobs.length)
    handOver.write(pull.res, payload, { jobs, ack, wokenAt })
  }

  function respondEmpty(pull: Pull, outcome: PullOutcome): void {
    end(pull, outcome)
    if (pull.settled === undefined) {
      pull.res.writeHead(204, pull.headers).end()
      return
    }
    pull.res
      .set(pull.headers)
      .type('json')
      .send(`{"jobs":[],${batchTail(pull, false)}}`)
  }

  function refuse(pull: Pull, error: GatewayError, outcome: PullOutcome): void {
    end(pull, outcome)
    sendProblem(pull.res, error, pull.settled === undefined ? {} : { settled: pull.settled })
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

  function park(pull: Pull, subscription: Subscription, waitSeconds: number): void {
    const { res, max } = pull
    if (res.destroyed || res.req.socket.destroyed) {
      // Its 'close' has been: nothing would take the waiter out again.
      end(pull, 'aborted')
      return
    }
    const waiter = createWaiter({
      subscription,
      max,
      isLive: () => isReachable(res),
      answer: (answer) => respond(pull, subscription, answer),
    })
    res.once('close', () => {
      if (dispatcher.leave(waiter)) end(pull, 'aborted')
    })
    const waitMs = waitSeconds * 1000 * (1 - clock.random() * jitterPart)
    // The wait counts from arrival, what was done since included.
    const left = waitSeconds === 0 ? 0 : Math.max(1, waitMs - (clock.now() - pull.arrivedAt))
    dispatcher.park(waiter, left)
  }

  return defineRoute({
    method: 'patch',
    path: '/subscriptions/{id}',
    summary:
      'Pull: held open until a job is there or the wait ends. Settles in the body commit first (with ?max)',
    query: pullQuery,
    body: pullBody,
    bodyOptional: true,
    responses: {
      200: { description: 'A job; with ?max a batch', schema: pulledJob.or(pulledBatch) },
      204: { description: 'The wait ended without a job' },
    },
    async handle({ req, res, params, query, body, bodyText }) {
      const arrivedAt = clock.now()
      const id = subscriptionId(params.id)
      const settling = hasSettles(body)
      if (settling && query.max === undefined) {
        const fields = [{ field: 'max', message: 'is needed with settles in the body: ?max=1 to 100' }]
        throw new GatewayError('invalid-request', { detail: `max: ${fields[0]?.message ?? ''}`, fields })
      }
      const settled = settling ? await settleAll(services, body, bodyText) : undefined
      const { seconds, applied } = waitOf(req, query.wait, services.wait)
      const pull: Pull = {
        res,
        arrivedAt,
        subscription: id,
        batch: query.max !== undefined,
        max: query.max ?? 1,
        settled,
        headers: applied === undefined ? {} : { 'Preference-Applied': applied },
      }
      try {
        const subscription = found(await directory.find(id))
        if (subscription.endedAt !== null) throw ended()
        await headOfPipeline(req, res)
        admit(subscription)
        const refused = settled?.some((one) => one.status !== 200) ?? false
        park(pull, subscription, refused ? 0 : seconds)
      } catch (error) {
        const known = asGatewayError(error)
        refuse(pull, known, known.code === 'draining' ? 'draining' : 'rejected')
        if (known.code === 'internal') throw error
      }
      return undefined
    },
  })
}

/** A request pipelined behind another on its connection gets nothing before that one is answered. */
async function headOfPipeline(req: Request, res: Response): Promise<void> {
  if (res.socket !== null) return
  const gone = new AbortController()
  const close = () => gone.abort()
  req.socket.once('close', close)
  try {
    await once(res, 'socket', { signal: gone.signal })
  } catch {
    // The connection is gone: whoever is parked with a dead socket is passed over.
  } finally {
    req.socket.off('close', close)
  }
}

function batchTail(pull: Pull, more: boolean): string {
  return `"settled":${JSON.stringify(pull.settled ?? [])},"more":${more}`
}

/** The job spec goes in as text: parsing it would change it. */
function jobText(job: ClaimedJob, ack: Subscription['ack']): string {
  const rest = JSON.stringify({
    id: job.id,
    topic: job.topic.name,
    attempt: job.attempt,
    publishedAt: job.publishedAt,
    traceparent: job.traceparent ?? undefined,
    redelivered: job.redelivered || undefined,
    ...(ack === 'explicit'
      ? { lease: job.lease, leaseSeconds: job.leaseSeconds, leaseExpiresAt: job.leaseEndsAt }
      : {}),
  })
  return `{"jobSpec":${job.jobSpec},${rest.slice(1)}`
}
