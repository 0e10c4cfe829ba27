import { maxHeaderSize, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
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

/** What Node's parser refuses, by its code: these never become an exchange, or break off the body of one. */
export function refusalOf(error: Error): GatewayError {
  const headers = { Connection: 'close' }
  switch ('code' in error ? error.code : undefined) {
    case 'HPE_HEADER_OVERFLOW':
      return new GatewayError('headers-too-large', {
        headers,
        detail: `they may have ${maxHeaderSize} bytes`,
      })
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new GatewayError('body-too-large', { headers, detail: 'the chunk extensions are too long' })
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new GatewayError('request-timeout', { headers, detail: 'the request did not arrive in time' })
    default:
      return new GatewayError('invalid-request', { headers, detail: 'this is not HTTP/1.1 as of RFC 9112' })
  }
}

/** The whole answer for a connection on which there is no exchange. It is not closed here. */
export function writeProblem(socket: Duplex, error: GatewayError): void {
  if (!socket.writable) return
  const text = JSON.stringify(problemOf(error))
  const headers = {
    ...{
      'Cache-Control': 'no-store',
      'Content-Type': problemType,
      'Content-Length': Buffer.byteLength(text),
    },
    ...{ ...problemHeaders(error), Connection: 'close' },
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`HTTP/1.1 ${error.status} ${STATUS_CODES[error.status] ?? ''}\r\n${lines.join('')}\r\n${text}`)
}

/** Errors that are not ours say nothing to the client. */
export function asGatewayError(error: unknown): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError('internal', { cause: error })
}
