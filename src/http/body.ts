import express from 'express'
import type { Request, RequestHandler } from 'express'
import { GatewayError } from '../domain/errors.ts'

/** Reads any body up to the limit as bytes; what it means is for `jsonBody` to say. */
export function bodyReader(limitBytes: number): RequestHandler {
  return express.raw({ type: () => true, limit: limitBytes, inflate: false })
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The request's JSON: its text, byte for byte, and the value it stands for. Undefined without a body: zero bytes are
 * no body, whatever their Content-Type. Throws `unsupported-media-type` or `invalid-request`; a message of the
 * parser would quote the body, so none is passed on.
 */
export function jsonBody(request: Request): { readonly text: string; readonly value: unknown } | undefined {
  const bytes: unknown = request.body
  if (!Buffer.isBuffer(bytes) || bytes.length === 0) return undefined
  if (!isJsonType(request.get('content-type'))) {
    throw new GatewayError('unsupported-media-type', {
      detail: 'send the body with Content-Type: application/json',
      headers: { [request.method === 'PATCH' ? 'Accept-Patch' : 'Accept']: 'application/json' },
    })
  }
  try {
    const text = utf8.decode(bytes)
    return { text, value: JSON.parse(text) as unknown }
  } catch (cause) {
    const what = cause instanceof SyntaxError ? 'valid JSON' : 'valid UTF-8'
    throw new GatewayError('invalid-request', { detail: `the body is not ${what}` })
  }
}

function isJsonType(header: string | undefined): boolean {
  const [type, ...parameters] = (header ?? '')
    .toLowerCase()
    .split(';')
    .map((part) => part.trim())
  return (
    type === 'application/json' &&
    parameters.every((p) => !p.startsWith('charset') || /^charset="?utf-8"?$/.test(p))
  )
}

/** What express.raw reports, in our words. */
export function bodyError(error: unknown, limitBytes: number): GatewayError | undefined {
  if (!(error instanceof Error) || !('type' in error)) return undefined
  switch (error.type) {
    case 'entity.too.large':
      return new GatewayError('body-too-large', {
        detail: `the body may have ${limitBytes} bytes (PULLGATE_BODY_MAX_BYTES)`,
        headers: { Connection: 'close' },
      })
    case 'encoding.unsupported':
      return new GatewayError('unsupported-media-type', { detail: 'send the body without Content-Encoding' })
    case 'request.aborted':
    case 'request.size.invalid':
      return new GatewayError('invalid-request', { detail: 'the body ended before its Content-Length' })
    default:
      return undefined
  }
}
