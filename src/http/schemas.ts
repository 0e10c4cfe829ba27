import { z } from 'zod'
import { jobStates } from '../domain/job-states.ts'
import {
  anyJson,
  idempotencyKey,
  idText,
  instant,
  lease,
  leaseSeconds,
  offerSeconds,
  queryBoolean,
  queryNumber,
  seconds,
  text,
  time,
  topicName,
} from './fields.ts'

/** Every shape that goes in or out, once: types, validation and /openapi.json all come from here. */

export const noQuery = z.strictObject({})

// Subscriptions

export const subscribeBody = z
  .strictObject({
    topic: topicName.optional(),
    topics: z.array(topicName).min(1).max(50).optional(),
    ack: z.enum(['auto', 'explicit']).default('auto'),
    name: text(1, 200).optional(),
    leaseSeconds: leaseSeconds.optional().describe('Default 60'),
    offerSeconds: offerSeconds.optional(),
    maxParked: z.int().min(1).max(1_000_000).optional(),
  })
  .superRefine((body, context) => {
    if ((body.topic === undefined) === (body.topics === undefined)) {
      context.addIssue({ code: 'custom', path: ['topic'], message: 'give either topic or topics' })
    } else if (body.topics !== undefined && new Set(body.topics).size < body.topics.length) {
      context.addIssue({ code: 'custom', path: ['topics'], message: 'names a topic twice' })
    }
    if (typeof body.offerSeconds === 'number' && body.ack !== 'explicit') {
      const message = 'needs "ack": "explicit": an offer is accepted by a heartbeat with its lease'
      context.addIssue({ code: 'custom', path: ['offerSeconds'], message })
    }
    if (body.leaseSeconds !== undefined && body.ack !== 'explicit') {
      const message =
        'needs "ack": "explicit": with automatic acknowledgement there is no lease to renew or settle by'
      context.addIssue({ code: 'custom', path: ['leaseSeconds'], message })
    }
  })
  .meta({ id: 'SubscribeRequest' })

export const subscriptionAnswer = z
  .object({
    id: z.string(),
    topics: z.array(topicName),
    ack: z.enum(['auto', 'explicit']),
    name: z.string().nullable(),
    leaseSeconds,
    offerSeconds,
    maxParked: z.int().nullable().describe('Parked pulls per gateway; null: no limit'),
    createdAt: time,
  })
  .meta({ id: 'Subscription' })

export const subscriptionUse = subscriptionAnswer
  .extend({
    parked: z.int().describe('Pulls parked on the gateway that answers'),
    jobsHeld: z.int(),
    lastPullAt: time.nullable().describe('To the minute'),
    endedAt: time.nullable(),
  })
  .meta({ id: 'SubscriptionUse' })

export const subscriptionList = z.object({ subscriptions: z.array(subscriptionUse) })
export const endQuery = z.strictObject({ release: queryBoolean.default(false) })

// Pulls

export const pullQuery = z.strictObject({
  wait: queryNumber(0, 3600)
    .optional()
    .describe('Seconds; more than the gateway allows counts as its maximum'),
  max: queryNumber(1, 100).optional().describe('A batch of at most so many jobs'),
})

const preferHeader = z
  .string()
  .optional()
  .describe('wait=N: held for at most N seconds (RFC 7240); ?wait, where there is one, beats it')
export const waitHeaders = z.object({ Prefer: preferHeader })
export const pullHeaders = z.object({
  Prefer: preferHeader,
  'Idempotency-Key': idempotencyKey
    .optional()
    .describe(
      'The same key again gives again what an earlier pull with it was handed. Needs explicit acknowledgement',
    ),
})

export const completeBody = z
  .strictObject({
    lease: lease
      .optional()
      .describe('May be left out for a job in state delivered (automatic acknowledgement)'),
    result: anyJson.optional(),
  })
  .meta({ id: 'CompleteRequest' })
const failFields = z.strictObject({
  lease: lease
    .optional()
    .describe(
      'May be left out for a job in state delivered (automatic acknowledgement): it is not retried then',
    ),
  error: text(0, 10_000),
  retry: z.boolean().optional().describe('Default true; needs the lease'),
  retryAfterSeconds: seconds.optional().describe('Excludes "retry": false; needs the lease'),
})
/** What would have no effect is refused. */
function refuseVainRetry(body: z.output<typeof failFields>, context: z.RefinementCtx): void {
  const vain = (field: string, message: string) =>
    context.addIssue({ code: 'custom', path: [field], message })
  if (body.retryAfterSeconds !== undefined && body.retry === false)
    vain('retryAfterSeconds', 'excludes "retry": false')
  if (body.lease !== undefined) return
  const message = 'needs the lease: without it the job is failed for good'
  if (body.retry === true) vain('retry', message)
  if (body.retryAfterSeconds !== undefined) vain('retryAfterSeconds', message)
}
export const failBody = failFields.superRefine(refuseVainRetry).meta({ id: 'FailRequest' })
export const releaseBody = z
  .strictObject({ lease, delaySeconds: seconds.optional() })
  .meta({ id: 'ReleaseRequest' })
export const heartbeatBody = z
  .strictObject({ lease, leaseSeconds: leaseSeconds.optional(), progress: anyJson.optional() })
  .meta({ id: 'HeartbeatRequest' })

const withId = { id: idText }
export const pullBody = z
  .strictObject({
    complete: z.array(completeBody.extend(withId)).max(100).default([]),
    fail: z.array(failFields.extend(withId).superRefine(refuseVainRetry)).max(100).default([]),
    release: z.array(releaseBody.extend(withId)).max(100).default([]),
    heartbeat: z.array(heartbeatBody.extend(withId)).max(100).default([]),
  })
  .meta({ id: 'PullRequest' })

const pulledJobShape = {
  jobSpec: z.unknown().describe('As published, byte for byte'),
  id: z.string(),
  topic: topicName,
  attempt: z.int(),
  publishedAt: time,
  traceparent: z.string().optional(),
  redelivered: z.literal(true).optional().describe('An earlier attempt was handed over'),
  lease: lease.optional().describe('With explicit acknowledgement'),
  leaseSeconds: leaseSeconds.optional(),
  leaseExpiresAt: time.optional(),
  acceptBy: time
    .optional()
    .describe(
      'With offerSeconds: it is only offered until then; a heartbeat accepts it. Do not start before',
    ),
}
export const pulledJob = z.object(pulledJobShape).meta({ id: 'PulledJob' })
const settledShape = {
  id: z.string(),
  status: z.int().describe('The HTTP status that the single call would have given'),
  code: z.string().optional(),
}
export const settled = z.object(settledShape).meta({ id: 'Settled' })
export type Settled = z.infer<typeof settled>
export const pulledBatch = z
  .object({ jobs: z.array(pulledJob), settled: z.array(settled), more: z.boolean() })
  .meta({ id: 'PulledBatch' })

// Jobs

const state = z.enum(jobStates)
export const stateAnswer = z.object({ state }).meta({ id: 'StateAnswer' })
export const failAnswer = z.object({ state, dueAt: time.optional() }).meta({ id: 'FailAnswer' })
export const heartbeatAnswer = z
  .object({ leaseExpiresAt: time, cancel: z.object({ reason: z.string() }).nullable() })
  .meta({ id: 'HeartbeatAnswer' })
export const cancelBody = z.strictObject({ reason: text(0, 1000).optional() }).meta({ id: 'CancelRequest' })

export const jobDetail = z
  .object({
    id: z.string(),
    topic: topicName,
    state,
    pending: z
      .string()
      .nullable()
      .describe(
        'Why it is not running: not-due, retry-later, topic-paused, waiting-for-executor, waiting-for-acceptance, ' +
          'waiting-for-decision',
      ),
    priority: z.int(),
    attempts: z.int(),
    maxAttempts: z.int(),
    deliveries: z.int(),
    onLost: z.enum(['requeue', 'orphan', 'fail']),
    dedupeKey: z.string().nullable(),
    subscription: z.string().nullable(),
    createdAt: time,
    dueAt: time,
    claimedAt: time.nullable(),
    finishedAt: time.nullable(),
    leaseExpiresAt: time.nullable().describe('While it is offered or running'),
    expiresAt: time.nullable(),
    cancel: z.object({ reason: z.string() }).nullable(),
    lastError: z.string().nullable(),
    progress: z.unknown().nullable(),
    result: z.unknown().nullable(),
    history: z
      .array(z.unknown())
      .describe('Attempts that did not succeed: attempt, at, outcome, error, state'),
  })
  .meta({ id: 'Job' })

export const publishBody = z
  .strictObject({
    jobSpec: anyJson,
    priority: z.int().min(-10).max(10).optional().describe('Higher is served first; default 0'),
    runAt: instant.optional(),
    delaySeconds: seconds.optional(),
    dedupeKey: text(1, 500).optional(),
    maxAttempts: z.int().min(1).max(100).optional(),
    onLost: z.enum(['requeue', 'orphan', 'fail']).optional(),
    expiresAt: instant.optional(),
    traceparent: text(0, 200).optional(),
  })
  .meta({ id: 'PublishRequest' })
export const publishHeaders = z.object({
  'Idempotency-Key': idempotencyKey
    .optional()
    .describe('For 24 hours the same key and body add no other job to the topic, and get the same id'),
})
export const publishAnswer = z.object({ id: z.string() }).meta({ id: 'PublishAnswer' })

// Topics

const count = z.int()
export const topicAnswer = z
  .object({
    name: topicName,
    paused: z.boolean(),
    maxAttempts: z.int(),
    onLost: z.enum(['requeue', 'orphan', 'fail']),
    jobs: z.object({
      scheduled: count,
      ready: count,
      offered: count,
      running: count,
      delivered: count,
      orphaned: count,
    }),
    oldestReadySeconds: z.number().nullable(),
    parked: z.int().describe('Pulls parked on the gateway that answers'),
    desiredExecutors: z
      .int()
      .describe('offered + running, and ready unless the topic is paused: a target for an autoscaler'),
  })
  .meta({ id: 'Topic' })
export const topicList = z
  .object({
    topics: z.array(topicAnswer),
    countedAt: time.nullable().describe('The counts are kept for up to 15 s'),
  })
  .meta({ id: 'TopicList' })

export const pathParams = { id: z.string(), topic: topicName }
