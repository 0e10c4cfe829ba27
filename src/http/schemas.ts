import { z } from 'zod'
import { jobStates } from '../domain/job-states.ts'

/** Every shape that goes in or out, once: types, validation and /openapi.json all come from here. */

/** A whole number in a query string. */
const queryNumber = (min: number, max: number) =>
  z.preprocess(
    (value) => (typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value),
    z.int(`must be a whole number from ${min} to ${max}`).min(min).max(max),
  )

const queryBoolean = z.preprocess(
  (value) => (value === 'true' || value === '' ? true : value === 'false' ? false : value),
  z.boolean('must be true or false'),
)

const topicName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$/,
    'must be 1 to 200 of A-Z a-z 0-9 . _ : - and begin with a letter or digit',
  )
  .meta({ id: 'TopicName', examples: ['jobs_myapp_prod'] })
const seconds = z.number().min(0).max(31_536_000)
const leaseSeconds = z.int().min(10).max(43_200)
const offerSeconds = z
  .int()
  .min(5)
  .max(60)
  .nullable()
  .describe('A job is only offered for so long, until its first heartbeat accepts it; null: it runs at once')
const time = z.iso.datetime({ offset: true })
/** An instant that came in: what Postgres takes, and an answer can say. */
const instant = z.iso
  .datetime({ offset: true, abort: true })
  .refine(
    (text) =>
      /^(?!0000)[^.]*(\.\d{1,9})?(Z|[+-](0\d|1[0-5]):\d\d)$/.test(text) &&
      Date.parse(text) < Date.UTC(10_000, 0, 1),
    'must be of the years 0001 to 9999 (UTC), with at most 9 decimals and an offset below 16 hours',
  )
/** Text as it is kept. In place of a lone surrogate Postgres would get U+FFFD, and for U+0000 it has no place. */
const text = (min: number, max: number) =>
  z
    .string()
    .min(min)
    .max(max)
    .refine(
      (value) => !/\p{Surrogate}/u.test(value) && !value.includes('\0'),
      'must not contain U+0000 or a lone surrogate',
    )
const lease = z.guid().describe('The token that came with the job; it fences every later word about it')
const anyJson = z.unknown().describe('Any JSON; kept as it is, digit for digit')
const idText = z.string().regex(/^\d{1,19}$/, 'must be the id of a job')

export const noQuery = z.strictObject({})

// Subscriptions

export const subscribeBody = z
  .strictObject({
    topic: topicName.optional(),
    topics: z.array(topicName).min(1).max(50).optional(),
    ack: z.enum(['auto', 'explicit']).default('auto'),
    name: text(1, 200).optional(),
    leaseSeconds: leaseSeconds.default(60),
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
export const idempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters, once')
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
export const failBody = z
  .strictObject({
    lease: lease
      .optional()
      .describe('May be left out for a job in state delivered (automatic acknowledgement)'),
    error: text(0, 10_000),
    retry: z.boolean().default(true),
    retryAfterSeconds: seconds.optional(),
  })
  .meta({ id: 'FailRequest' })
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
    fail: z.array(failBody.extend(withId)).max(100).default([]),
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
