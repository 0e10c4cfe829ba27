import { ServerResponse } from 'node:http'
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import type { Waiter } from '../dispatch/waiter.ts'

/**
 * A request and its response: Node's response, which knows its request, and what the gateway notes of the two. As
 * fields of one object, since tens of thousands of them are parked. No methods: express swaps the prototype.
 */
export class Exchange extends ServerResponse {
  /** X-Request-Id of the answer, and in the log. */
  id = ''
  /** Milliseconds of the clock. */
  arrivedAt = 0
  /** The template of the route that serves it: a path would be a label without bounds. */
  route = 'none'
  /** The pull that is parked on it. */
  waiter: Waiter | undefined = undefined
}

/** A header's value; of one that came several times all, joined as Node does. */
export function headerOf({ headers }: IncomingMessage, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}

/** Whether nothing was sent yet and it could still be. */
export function isOpen(exchange: Exchange): boolean {
  return !exchange.headersSent && !exchange.destroyed
}

export const jsonType = 'application/json; charset=utf-8'

/** The head of every answer; `text` decides its length. Written at the end only: a head that waits costs memory. */
export function writeHead(
  exchange: Exchange,
  status: number,
  headers: OutgoingHttpHeaders | undefined,
  type: string | undefined,
  text: string,
): void {
  exchange.writeHead(status, {
    'X-Request-Id': exchange.id,
    'Cache-Control': 'no-store',
    ...(type === undefined ? undefined : { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) }),
    ...headers,
  })
}

/** Writes a whole answer. */
export function sendText(
  exchange: Exchange,
  status: number,
  type: string,
  text: string,
  headers?: OutgoingHttpHeaders,
): void {
  writeHead(exchange, status, headers, type, text)
  exchange.end(text)
}

/** Writes an answer that is its head. */
export function sendEmpty(exchange: Exchange, status: number, headers?: OutgoingHttpHeaders): void {
  writeHead(exchange, status, headers, undefined, '')
  exchange.end()
}
