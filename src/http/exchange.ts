import { randomUUID } from 'node:crypto'
import { ServerResponse } from 'node:http'
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'

/**
 * A request and its response: Node's response, which knows its request, and what the gateway notes of the two. As
 * fields of one object, since tens of thousands of them are parked. No methods: express swaps the prototype.
 */
export class Exchange extends ServerResponse {
  /** The client's X-Request-Id, or one of ours once it was needed: `idOf` reads it. */
  id: string | undefined = undefined
  /** Milliseconds of the clock. */
  arrivedAt = 0
  /** The template of the route that serves it: a path would be a label without bounds. */
  route = 'none'
  /** What is held on it and has to hear of its end. A listener more would cost each parked pull 200 bytes. */
  held: { closed(): void } | undefined = undefined
}

/** The id of the request in its answer and in the log. Made late: while parked one would cost 480 bytes. */
export function idOf(exchange: Exchange): string {
  return (exchange.id ??= randomUUID())
}

/** A header's value; of one that came several times all, joined as Node does. */
export function headerOf({ headers }: IncomingMessage, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}

/** Whether it came through a proxy that says so. */
export function isProxied({ headers }: IncomingMessage): boolean {
  return (
    headers.via !== undefined || headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined
  )
}

/** Whether its end has been, or is about to be told: nobody hears of it who begins to listen now. */
export function isOver(exchange: Exchange): boolean {
  return exchange.destroyed || exchange.req.socket.destroyed
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
  text: string | Buffer,
): void {
  exchange.writeHead(status, {
    'X-Request-Id': idOf(exchange),
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
