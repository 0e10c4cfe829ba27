import { createHash } from 'node:crypto'
import { GatewayError } from '../domain/errors.ts'
import { headerOf } from './exchange.ts'
import type { Exchange } from './exchange.ts'
import { validate } from './route.ts'
import { idempotencyKey } from './fields.ts'

const name = 'Idempotency-Key'

/** The header's value, if the request has one. Throws `invalid-request`. */
export function idempotencyKeyOf({ req }: Exchange): string | undefined {
  const header = headerOf(req, 'idempotency-key')
  return header === undefined ? undefined : validate(idempotencyKey, name, header)
}

/**
 * For a route where the same request again has another effect, and no key changes that: better refused than ignored.
 * Routes that have one effect, however often they are called, ignore the header. Throws `invalid-request`.
 */
export function refuseIdempotencyKey({ req }: Exchange, message: string): void {
  if (headerOf(req, 'idempotency-key') !== undefined) throw badKey(message)
}

export function badKey(message: string): GatewayError {
  return new GatewayError('invalid-request', {
    detail: `${name}: ${message}`,
    fields: [{ field: name, message }],
  })
}

/** 128 bits of SHA-256, as 32 hexadecimal digits: what the database keeps in place of a key or a body. */
export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}
