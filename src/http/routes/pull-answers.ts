import { asError, GatewayError } from '../../domain/errors.ts'
import type { ClaimedJob, PullKey, PullOutcome, Subscription } from '../../domain/types.ts'
import type { Answer } from '../../dispatch/waiter.ts'
import { idOf, isProxied, jsonType, sendEmpty, sendText, writeHead } from '../exchange.ts'
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

/** How pulls end: each is counted once. Nothing here throws. */
export type PullAnswers = {
  /** Whatever is thrown before the first byte is written, jobs go back undelivered and the client is told. */
  respond(pull: Pull, subscription: Subscription, answer: Answer): void
  /** Answers with what was thrown, as a problem. */
  refuse(pull: Pull, thrown: unknown, outcome: PullOutcome): void
  /** The client has left before there was an answer. */
  abort(pull: Pull): void
}

export function createPullAnswers(
  services: Pick<Services, 'directory' | 'handOver' | 'clock' | 'emit'>,
): PullAnswers {
  const { directory, handOver, clock, emit } = services
  /** Acknowledgements of pulls that were given jobs through a proxy. */
  const proxied = new Set<Subscription['ack']>()

  function end(pull: Pull, outcome: PullOutcome, jobs = 0): void {
    const waitSeconds = (clock.now() - pull.exchange.arrivedAt) / 1000
    emit({ type: 'pull ended', outcome, waitSeconds, jobs, subscription: pull.subscription })
  }

  function respond(pull: Pull, subscription: Subscription, answer: Answer): void {
    try {
      give(pull, subscription, answer)
    } catch (thrown) {
      if (answer.kind === 'jobs') handOver.giveBack(answer.jobs)
      refuse(pull, thrown, 'error')
    }
  }

  function give(pull: Pull, subscription: Subscription, answer: Answer): void {
    switch (answer.kind) {
      case 'jobs':
        return giveJobs(pull, subscription, answer.jobs, answer.wokenAt)
      case 'empty':
        return giveNothing(pull, 'empty', pull.headers)
      case 'draining':
        return giveNothing(pull, 'draining', { ...pull.headers, Connection: 'close' })
      case 'ended':
        directory.forget([subscription.id])
        return refuse(pull, ended(), 'ended')
      case 'error':
        return refuse(pull, answer.error, 'error')
    }
  }

  function giveJobs(
    pull: Pull,
    { ack }: Subscription,
    claimed: readonly ClaimedJob[],
    wokenAt: number,
  ): void {
    const { jobs, payload } = makePayload(claimed, (some) => {
      const texts = some.map((job) => jobText(job, ack))
      const more = some.length === pull.max || some.length < claimed.length
      return pull.batch ? `{"jobs":[${texts.join(',')}],${batchTail(pull, more)}}` : (texts[0] ?? '')
    })
    writeHead(pull.exchange, 200, pull.headers, jsonType, payload)
    end(pull, 'jobs', jobs.length)
    if (isProxied(pull.exchange.req)) {
      emit({ type: 'proxied pull', ack, first: !proxied.has(ack) })
      proxied.add(ack)
    }
    handOver.write(pull.exchange, payload, { jobs, ack, wokenAt })
    handOver.giveBack(claimed.slice(jobs.length))
  }

  function giveNothing(pull: Pull, outcome: PullOutcome, headers: Pull['headers']): void {
    if (pull.settled === undefined) sendEmpty(pull.exchange, 204, headers)
    else sendText(pull.exchange, 200, jsonType, `{"jobs":[],${batchTail(pull, false)}}`, headers)
    end(pull, outcome)
  }

  function refuse(pull: Pull, thrown: unknown, outcome: PullOutcome): void {
    end(pull, outcome)
    const error = explain(pull.exchange, thrown)
    sendProblem(pull.exchange, error, pull.settled === undefined ? {} : { settled: pull.settled })
  }

  /** A failure of ours is logged. The same pull at once would most likely meet it again. */
  function explain(exchange: Exchange, thrown: unknown): GatewayError {
    const error = asGatewayError(thrown)
    if (error.code !== 'internal') return error
    const cause = asError(error.cause ?? error)
    emit({ type: 'request failed', route: exchange.route, id: idOf(exchange), error: cause })
    return new GatewayError('internal', { cause, retryAfterSeconds: 1 + Math.floor(clock.random() * 5) })
  }

  return { respond, refuse, abort: (pull) => end(pull, 'aborted') }
}

// A text is joined with the head, for one write. Longer than this it might become too long for a string by that.
const textMax = 65_536

/**
 * The text of an answer, complete before a byte of its head is written. Where none can be made of all jobs, as when it is
 * longer than a string can be, it is made of the first half of them, and so on. Throws what `make` throws for one job.
 */
export function makePayload(
  claimed: readonly ClaimedJob[],
  make: (some: readonly ClaimedJob[]) => string,
): { readonly jobs: readonly ClaimedJob[]; readonly payload: string | Buffer } {
  for (let jobs = claimed; ; jobs = jobs.slice(0, Math.ceil(jobs.length / 2))) {
    try {
      const text = make(jobs)
      return { jobs, payload: text.length > textMax ? Buffer.from(text) : text }
    } catch (error) {
      if (jobs.length <= 1) throw error
    }
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
    ...(job.offered ? { acceptBy: job.leaseEndsAt } : {}),
  })
  return `{"jobSpec":${job.jobSpec},${rest.slice(1)}`
}
