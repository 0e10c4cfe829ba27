import type { IncomingMessage } from 'node:http'
import { GatewayError } from '../domain/errors.ts'
import type { Clock } from '../domain/clock.ts'
import type { Emit } from '../domain/events.ts'
import { addAdminRoutes, addRoutes, createExpress, refuseTheRest } from './express-routes.ts'
import type { AdminSources } from './express-routes.ts'
import { headerOf, idOf } from './exchange.ts'
import type { Exchange } from './exchange.ts'
import { createHotRoutes } from './hot-routes.ts'
import { openApi } from './openapi.ts'
import { createHttpServer } from './listening.ts'
import type { ExchangeHandlers, HttpServer } from './listening.ts'
import type { Route } from './route.ts'
import { jobRoutes } from './routes/jobs.ts'
import { pullRoute } from './routes/pull.ts'
import { subscriptionRoutes } from './routes/subscriptions.ts'
import { topicRoutes } from './routes/topics.ts'
import { createServe } from './serve.ts'
import type { Services } from './services.ts'

export type ServerOptions = {
  readonly version: string
  readonly bodyMaxBytes: number
  readonly keepAliveMs: number
  readonly admin: AdminSources
}

export function apiRoutes(services: Services): Route[] {
  return [
    ...subscriptionRoutes(services),
    pullRoute(services),
    ...jobRoutes(services),
    ...topicRoutes(services),
  ]
}

/** The public API; with `withAdmin` health and metrics on the same port as well. */
export function createApi(services: Services, options: ServerOptions, withAdmin: boolean): HttpServer {
  const { clock, emit, handOver } = services
  const routes = apiRoutes(services)
  const serve = createServe({ emit, bodyMaxBytes: options.bodyMaxBytes })
  const app = createExpress()
  if (withAdmin) addAdminRoutes(app, options.admin)
  addRoutes(app, routes, serve, JSON.stringify(openApi(routes, options.version)))
  refuseTheRest(app, serve)

  const hotRoute = createHotRoutes(routes)
  const { received, closed } = forAll(clock, emit, serve.failure, (exchange) => {
    const { req } = exchange
    const match = hotRoute(req.method ?? '', req.url ?? '')
    if (match === undefined) app(req, exchange)
    else void serve.route(match.route, exchange, match.params, match.query)
  })
  const handlers: ExchangeHandlers = {
    received(exchange) {
      handOver.requestOn(exchange.req.socket)
      received(exchange)
    },
    closed,
  }
  return createHttpServer(handlers, { ...options, isHeld: handOver.awaitsEvidence })
}

/** Health and metrics on a port of their own. */
export function createAdmin(
  { clock, emit }: Pick<Services, 'clock' | 'emit'>,
  options: ServerOptions,
): HttpServer {
  const serve = createServe({ emit, bodyMaxBytes: options.bodyMaxBytes })
  const app = createExpress()
  addAdminRoutes(app, options.admin)
  refuseTheRest(app, serve)
  const handlers = forAll(clock, emit, serve.failure, (exchange) => void app(exchange.req, exchange))
  return createHttpServer(handlers, options)
}

/** What is done for every request, whatever it is: an id, an event at its end, no page of another origin. */
function forAll(
  clock: Clock,
  emit: Emit,
  refuse: (exchange: Exchange, error: GatewayError) => void,
  serve: (exchange: Exchange) => void,
): ExchangeHandlers {
  return {
    received(exchange) {
      const { req } = exchange
      const given = headerOf(req, 'x-request-id')
      if (given !== undefined && /^[\w.:-]{1,100}$/.test(given)) exchange.id = given
      exchange.arrivedAt = clock.now()
      const refusal = refusalFor(req)
      if (refusal === undefined) serve(exchange)
      else refuse(exchange, refusal)
    },
    closed(exchange) {
      const { req, route, statusCode: status, arrivedAt, held } = exchange
      const seconds = (clock.now() - arrivedAt) / 1000
      const isHeld = held !== undefined
      emit({
        type: 'request',
        route,
        method: req.method ?? '',
        status,
        seconds,
        held: isHeld,
        id: idOf(exchange),
      })
      held?.closed()
    },
  }
}

/** Why the request is refused wherever it leads. */
function refusalFor({ headers, httpVersion }: IncomingMessage): GatewayError | undefined {
  // A POST without a body needs no preflight: any page that a person on this machine opens could send it.
  if (isForeign(headers.origin, headers.host)) {
    return new GatewayError('foreign-origin', { detail: 'executors and tools send no Origin header' })
  }
  if (httpVersion !== '1.1') return undefined
  if (headers.host === undefined) {
    return new GatewayError('invalid-request', { detail: 'the header Host is missing' })
  }
  if (headers.expect !== undefined && !/\b100-continue\b/i.test(headers.expect)) {
    return new GatewayError('expectation-failed', { detail: 'only 100-continue can be expected' })
  }
  return undefined
}

function isForeign(origin: string | undefined, host: string | undefined): boolean {
  return origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== host)
}
