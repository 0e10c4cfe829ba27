import { z } from 'zod'
import { errorTable, GatewayError } from '../domain/errors.ts'
import type { ErrorCode } from '../domain/errors.ts'
import { sendText } from './exchange.ts'
import type { Exchange } from './exchange.ts'

/** RFC 9457. `code` is stable; `errors` names the fields of a request that is not valid. */
export const problemSchema = z
  .object({
    type: z.string().describe('urn:pullgate:error:<code>; docs/errors.md explains each code'),
    title: z.string(),
    status: z.int(),
    code: z.enum(Object.keys(errorTable) as [ErrorCode, ...ErrorCode[]]),
    detail: z.string().optional(),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
    settled: z
      .array(z.unknown())
      .optional()
      .describe('Of a pull whose settles were applied before it was refused'),
  })
  .meta({ id: 'Problem' })

export const problemType = 'application/problem+json; charset=utf-8'

export function problemOf(error: GatewayError): z.infer<typeof problemSchema> {
  const { title, status } = errorTable[error.code]
  const { detail, fields } = error.details
  return {
    type: `urn:pullgate:error:${error.code}`,
    title,
    status,
    code: error.code,
    ...(detail === undefined ? {} : { detail }),
    ...(fields === undefined ? {} : { errors: [...fields] }),
  }
}

export function problemHeaders(error: GatewayError): Record<string, string> {
  const { retryAfterSeconds, headers } = error.details
  return {
    ...headers,
    ...(retryAfterSeconds === undefined ? {} : { 'Retry-After': String(retryAfterSeconds) }),
  }
}

/**
 * Answers with the problem, unless nobody is there to read it or an answer was given. Never throws. A client whose answer
 * has begun, or cannot be made, is cut off: it would wait for the rest for ever.
 */
export function sendProblem(
  exchange: Exchange,
  error: GatewayError,
  extra: Record<string, unknown> = {},
): void {
  if (exchange.writableEnded || exchange.destroyed) return
  try {
    const text = JSON.stringify({ ...problemOf(error), ...extra })
    if (!exchange.headersSent)
      return sendText(exchange, error.status, problemType, text, problemHeaders(error))
  } catch {
    // It is cut off as well.
  }
  exchange.destroy()
}

/** Errors that are not ours say nothing to the client. */
export function asGatewayError(error: unknown): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError('internal', { cause: error })
}
