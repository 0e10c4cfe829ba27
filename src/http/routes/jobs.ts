import type { JobState } from '../../domain/job-states.ts'
import type { JobDetail } from '../../domain/reads.ts'
import type { SettleVerb } from '../../domain/types.ts'
import { refuseIdempotencyKey } from '../idempotency-key.ts'
import { cutJson } from '../json-text.ts'
import { jobId, noJob, refuseUnlessOk } from '../lookup.ts'
import { defineRoute } from '../route.ts'
import type { Route } from '../route.ts'
import {
  cancelBody,
  completeBody,
  failAnswer,
  failBody,
  jobDetail,
  noQuery,
  releaseBody,
  stateAnswer,
} from '../schemas.ts'
import type { Services } from '../services.ts'
import { heartbeatRoute } from './heartbeat.ts'

/** result and progress go out as the texts that came in. */
function jobText({ progress, result, cancelReason, ...job }: JobDetail): string {
  const rest = JSON.stringify({ ...job, cancel: cancelReason === null ? null : { reason: cancelReason } })
  return `${rest.slice(0, -1)},"progress":${progress ?? 'null'},"result":${result ?? 'null'}}`
}

function presentOutcome(state: JobState | null, dueAt: Date | null) {
  return { state, ...(dueAt === null ? {} : { dueAt }) }
}

export function jobRoutes(services: Services): Route[] {
  const { settles, queue, emit } = services
  const settle = async <T extends { readonly status: 'ok' | 'lost' | 'unknown' }>(
    verb: SettleVerb,
    id: string,
    settling: Promise<T>,
  ): Promise<T> => {
    const result = await settling
    emit({ type: 'settle', verb, status: result.status })
    refuseUnlessOk(result.status, id)
    return result
  }

  return [
    defineRoute({
      method: 'get',
      path: '/jobs/{id}',
      summary: 'A job without its spec: state, attempts, and why it is pending',
      query: noQuery,
      responses: { 200: { description: 'The job', schema: jobDetail } },
      async handle({ params }) {
        const id = jobId(params.id)
        const job = await queue.readJob(id)
        if (job === undefined) throw noJob(id)
        return { status: 200, text: jobText(job) }
      },
    }),
    heartbeatRoute(services),
    defineRoute({
      method: 'post',
      path: '/jobs/{id}/complete',
      hot: true,
      summary: 'The job succeeded; the same lease again gives the same answer',
      query: noQuery,
      body: completeBody,
      responses: { 200: { description: 'The state now', schema: stateAnswer } },
      async handle({ params, body, bodyText }) {
        const id = jobId(params.id)
        const result = cutJson(bodyText).get('result') ?? null
        const { state } = await settle('complete', id, settles.complete(id, body.lease ?? null, result))
        return { status: 200, body: { state } }
      },
    }),
    defineRoute({
      method: 'post',
      path: '/jobs/{id}/fail',
      hot: true,
      summary: 'The attempt failed; tried again later unless retry is false or no attempt is left',
      query: noQuery,
      body: failBody,
      responses: { 200: { description: 'The state now', schema: failAnswer } },
      async handle({ params, body }) {
        const id = jobId(params.id)
        const { lease = null, error, retry = true, retryAfterSeconds = null } = body
        const { state, dueAt } = await settle(
          'fail',
          id,
          settles.fail(id, lease, error, retry, retryAfterSeconds),
        )
        return { status: 200, body: presentOutcome(state, dueAt) }
      },
    }),
    defineRoute({
      method: 'post',
      path: '/jobs/{id}/release',
      hot: true,
      summary: 'Give the job back; costs no attempt',
      query: noQuery,
      body: releaseBody,
      responses: { 200: { description: 'The state now', schema: failAnswer } },
      async handle({ params, body }) {
        const id = jobId(params.id)
        const { state, dueAt } = await settle(
          'release',
          id,
          settles.release(id, body.lease, body.delaySeconds ?? null),
        )
        return { status: 200, body: presentOutcome(state, dueAt) }
      },
    }),
    defineRoute({
      method: 'post',
      path: '/jobs/{id}/cancel',
      summary: 'Cancel: at once if it has not started, else its executor hears of it by heartbeat',
      query: noQuery,
      body: cancelBody,
      bodyOptional: true,
      responses: { 200: { description: 'The state now', schema: stateAnswer } },
      async handle({ params, body }) {
        return { status: 200, body: { state: await settles.cancel(jobId(params.id), body.reason ?? null) } }
      },
    }),
    defineRoute({
      method: 'post',
      path: '/jobs/{id}/retry',
      summary: 'Re-drive a failed, orphaned, cancelled or expired job',
      query: noQuery,
      responses: { 200: { description: 'The state now', schema: stateAnswer } },
      async handle({ exchange, params }) {
        refuseIdempotencyKey(
          exchange,
          'is not kept here: if the job has failed again since, it would run again',
        )
        return { status: 200, body: { state: await settles.retry(jobId(params.id)) } }
      },
    }),
  ]
}
