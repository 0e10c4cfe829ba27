import { z } from 'zod'

/** Kinds of fields: what a value of each may be, whichever request or answer it is in. */

/** A whole number in a query string. */
export const queryNumber = (min: number, max: number) =>
  z.preprocess(
    (value) => (typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value),
    z.int(`must be a whole number from ${min} to ${max}`).min(min).max(max),
  )

export const queryBoolean = z.preprocess(
  (value) => (value === 'true' || value === '' ? true : value === 'false' ? false : value),
  z.boolean('must be true or false'),
)

export const topicName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$/,
    'must be 1 to 200 of A-Z a-z 0-9 . _ : - and begin with a letter or digit',
  )
  .meta({ id: 'TopicName', examples: ['jobs_myapp_prod'] })
/** A field that is left out keeps its own message. */
const unlessMissing = (message: string) => (issue: { readonly input?: unknown }) =>
  issue.input === undefined ? undefined : message
export const seconds = z.number().min(0).max(31_536_000)
export const leaseSeconds = z.int().min(10).max(43_200)
export const offerSeconds = z
  .int()
  .min(5)
  .max(60)
  .nullable()
  .describe('A job is only offered for so long, until its first heartbeat accepts it; null: it runs at once')
export const time = z.iso.datetime({ offset: true })
/** An instant that came in: what Postgres takes, and an answer can say. */
export const instant = z.iso
  .datetime({
    ...{ offset: true, abort: true },
    error: unlessMissing('must be an instant with Z or an offset, such as 2026-12-01T00:00:00Z'),
  })
  .refine(
    (text) =>
      /^(?!0000)[^.]*(\.\d{1,9})?(Z|[+-](0\d|1[0-5]):\d\d)$/.test(text) &&
      Date.parse(text) < Date.UTC(10_000, 0, 1),
    'must be of the years 0001 to 9999 (UTC), with at most 9 decimals and an offset below 16 hours',
  )
/** Text as it is kept. In place of a lone surrogate Postgres would get U+FFFD, and for U+0000 it has no place. */
export const text = (min: number, max: number) =>
  z
    .string()
    .min(min)
    .max(max)
    .refine(
      (value) => !/\p{Surrogate}/u.test(value) && !value.includes('\0'),
      'must not contain U+0000 or a lone surrogate',
    )
export const lease = z
  .guid({ error: unlessMissing('must be the lease that the job came with') })
  .describe('The token that came with the job; it fences every later word about it')
export const anyJson = z.unknown().describe('Any JSON; kept as it is, digit for digit')
export const idText = z.string().regex(/^\d{1,19}$/, 'must be the id of a job')
export const idempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters, once')
