import { asError, GatewayError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import { hasBody, readJson } from './body.ts'
import { idOf, isOpen, jsonType, sendEmpty, sendText } from './exchange.ts'
import type { Exchange } from './exchange.ts'
import { asGatewayError, sendProblem } from './problem.ts'
import type { Params, Reply, Route } from './route.ts'

/** How every route is served, whoever has matched it. */
export type Serve = {
  /** Reads the body, has the route handle it and writes its reply, or the problem. Never rejects. */
  route(route: Route, exchange: Exchange, params: Params, query: unknown): Promise<void>
  /** Answers with what was thrown, as a problem. */
  failure(exchange: Exchange, thrown: unknown): void
}

export function createServe({ emit, bodyMaxBytes }: { emit: Emit; bodyMaxBytes: number }): Serve {
  function failure(exchange: Exchange, thrown: unknown): void {
    const error = pathError(thrown) ?? asGatewayError(thrown)
    if (error.code === 'internal') {
      emit({ type: 'request failed', route: exchange.route, id: idOf(exchange), error: asError(thrown) })
    }
    sendProblem(exchange, error)
  }

  return {
    async route(route, exchange, params, query) {
      exchange.route = route.path
      try {
        const { req } = exchange
        const json = hasBody(req) ? await readJson(req, bodyMaxBytes) : undefined
        const reply = await route.handle(exchange, { params, query, json })
        if (reply !== undefined && isOpen(exchange)) send(exchange, reply)
      } catch (thrown) {
        failure(exchange, thrown)
      }
    },
    failure,
  }
}

function send(exchange: Exchange, { status, body, text, headers }: Reply): void {
  if (text === undefined && body === undefined) sendEmpty(exchange, status, headers)
  else sendText(exchange, status, jsonType, text ?? JSON.stringify(body), headers)
}

/** A path that cannot be percent-decoded. */
function pathError(error: unknown): GatewayError | undefined {
  return error instanceof URIError
    ? new GatewayError('route-not-found', { detail: 'the path cannot be decoded: write % as %25' })
    : undefined
}
