import type { GatewayError } from '../../domain/errors.ts'
import type { ClaimedJob, PullKey, PullOutcome, Subscription } from '../../domain/types.ts'
import type { Answer } from '../../dispatch/waiter.ts'
import { jsonType, sendEmpty, sendText, writeHead } from '../exchange.ts'
import type { Exchange } from '../exchange.ts'
import { ended } from '../lookup.ts'
import { sendProblem, asGatewayError } from '../problem.ts'
import type { Settled } from '../schemas.ts'
import type { Services } from '../services.ts'

/** What a pull asked for. */
export type Pull = {
  readonly exchange: Exchange
  readonly subscription: string
  readonly batch: boolean
  readonly max: number
  readonly key: PullKey | undefined
  /** Undefined: the body had no settles. */
  readonly settled: readonly Settled[] | undefined
  /** Preference-Applied, if it was. */
  readonly headers: Readonly<Record<string, string>> | undefined
}

/** How pulls end: each is counted once, when its answer is decided. */
export type PullAnswers = {
  respond(pull: Pull, subscription: Subscription, answer: Answer): void
  refuse(pull: Pull, error: GatewayError, outcome: PullOutcome): void
  /** The client has left before there was an answer. */
  abort(pull: Pull): void
}

export function createPullAnswers(
  services: Pick<Services, 'directory' | 'handOver' | 'clock' | 'emit'>,
): PullAnswers {
  const { directory, handOver, clock, emit } = services

  function end(pull: Pull, outcome: PullOutcome, jobs = 0): void {
    const waitSeconds = (clock.now() - pull.exchange.arrivedAt) / 1000
    emit({ type: 'pull ended', outcome, waitSeconds, jobs, subscription: pull.subscription })
  }

  function respond(pull: Pull, subscription: Subscription, answer: Answer): void {
    switch (answer.kind) {
      case 'jobs':
        return respondJobs(pull, subscription, answer.jobs, answer.wokenAt)
      case 'empty':
        return respondEmpty(pull, 'empty', pull.headers)
      case 'draining':
        return respondEmpty(pull, 'draining', { ...pull.headers, Connection: 'close' })
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
    writeHead(pull.exchange, 200, pull.headers, jsonType, payload)
    end(pull, 'jobs', jobs.length)
    handOver.write(pull.exchange, payload, { jobs, ack, wokenAt })
  }

  function respondEmpty(pull: Pull, outcome: PullOutcome, headers: Pull['headers']): void {
    end(pull, outcome)
    if (pull.settled === undefined) sendEmpty(pull.exchange, 204, headers)
    else sendText(pull.exchange, 200, jsonType, `{"jobs":[],${batchTail(pull, false)}}`, headers)
  }

  function refuse(pull: Pull, error: GatewayError, outcome: PullOutcome): void {
    end(pull, outcome)
    sendProblem(pull.exchange, error, pull.settled === undefined ? {} : { settled: pull.settled })
  }

  return { respond, refuse, abort: (pull) => end(pull, 'aborted') }
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
    ...(job.offered ? { acceptBy: job.leaseEndsAt } : {}),
  })
  return `{"jobSpec":${job.jobSpec},${rest.slice(1)}`
}
