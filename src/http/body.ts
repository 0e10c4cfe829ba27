import type { IncomingMessage } from 'node:http'
import { GatewayError } from '../domain/errors.ts'
import { headerOf } from './exchange.ts'

/** The request's JSON: its text, byte for byte, and the value it stands for. */
export type Json = { readonly text: string; readonly value: unknown }

/** Zero bytes are no body, whatever their Content-Type. */
export function hasBody(req: IncomingMessage): boolean {
  return req.headers['transfer-encoding'] !== undefined || declaredBytes(req) !== 0
}

/** By its Content-Length; 0 without one. */
export function declaredBytes({ headers }: IncomingMessage): number {
  return Number(headers['content-length'] ?? 0)
}

/**
 * Resolves to the request's JSON, undefined when its body turns out to have no bytes. Rejects with `body-too-large`,
 * `unsupported-media-type` or `invalid-request`; a message of the parser would quote the body, so none is passed on.
 */
export async function readJson(req: IncomingMessage, limitBytes: number): Promise<Json | undefined> {
  // Such a client waits to be asked for the body. It was not (listening.ts).
  if (req.headers.expect !== undefined && declaredBytes(req) > limitBytes) throw tooLarge(limitBytes)
  const bytes = await readBytes(req, limitBytes)
  return bytes.length === 0 ? undefined : jsonOf(req, bytes)
}

function jsonOf(req: IncomingMessage, bytes: Buffer): Json {
  if ((headerOf(req, 'content-encoding') ?? 'identity').toLowerCase() !== 'identity') {
    throw new GatewayError('unsupported-media-type', { detail: 'send the body without Content-Encoding' })
  }
  if (!isJsonType(headerOf(req, 'content-type'))) {
    throw new GatewayError('unsupported-media-type', {
      detail: 'send the body with Content-Type: application/json',
      headers: { [req.method === 'PATCH' ? 'Accept-Patch' : 'Accept']: 'application/json' },
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

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function isJsonType(header = ''): boolean {
  if (header === 'application/json') return true
  const [type, ...parameters] = header
    .toLowerCase()
    .split(';')
    .map((part) => part.trim())
  return (
    type === 'application/json' &&
    parameters.every((p) => !p.startsWith('charset') || /^charset="?utf-8"?$/.test(p))
  )
}

/**
 * What is over the limit is read off and dropped: a client that is still sending would not see the refusal. Nothing is
 * left on the request, with which a pull may be parked: the listeners would take 0.6 KB of its 9.
 */
function readBytes(req: IncomingMessage, limitBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    const take = (chunk: Buffer) => {
      length += chunk.length
      if (length <= limitBytes) chunks.push(chunk)
      else chunks.length = 0
    }
    const end = () => {
      req.off('data', take).off('end', end).off('close', cutOff)
      if (length > limitBytes) reject(tooLarge(limitBytes))
      else resolve(Buffer.concat(chunks, length))
    }
    const cutOff = () =>
      reject(new GatewayError('invalid-request', { detail: 'the body ended before its Content-Length' }))
    req.on('data', take).on('end', end).on('close', cutOff)
  })
}

function tooLarge(limitBytes: number): GatewayError {
  return new GatewayError('body-too-large', {
    detail: `the body may have ${limitBytes} bytes (PULLGATE_BODY_MAX_BYTES)`,
    headers: { Connection: 'close' },
  })
}
