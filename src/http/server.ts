import { randomUUID } from 'node:crypto'
import type { RequestListener } from 'node:http'
import express from 'express'
import type { ErrorRequestHandler, Express, RequestHandler } from 'express'
import { asError, GatewayError } from '../domain/errors.ts'
import type { Clock } from '../domain/clock.ts'
import type { Emit } from '../domain/events.ts'
import { bodyError, bodyReader } from './body.ts'
import { openApi } from './openapi.ts'
import { createHttpServer } from './listening.ts'
import type { HttpServer } from './listening.ts'
import { sendProblem, asGatewayError } from './problem.ts'
import type { Route } from './route.ts'
import { jobRoutes } from './routes/jobs.ts'
import { pullRoute } from './routes/pull.ts'
import { subscriptionRoutes } from './routes/subscriptions.ts'
import { topicRoutes } from './routes/topics.ts'
import type { Services } from './services.ts'

export type AdminSources = {
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>
  /** What keeps the gateway from being ready; empty when it is. */
  readonly notReady: () => readonly string[]
}

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
  const routes = apiRoutes(services)
  const description = JSON.stringify(openApi(routes, options.version))
  const app = createExpress(services.clock, services.emit)
  if (withAdmin) addAdminRoutes(app, options.admin)
  app.get('/openapi.json', (_req, res) => void res.type('json').send(description))
  app.use(bodyReader(options.bodyMaxBytes))
  for (const route of routes) app[route.method](expressPath(route.path), markRoute(route.path), route.handle)
  refuseOtherMethods(app, routes)
  finish(app, services.emit, options.bodyMaxBytes)

  const { handOver } = services
  const onRequest: RequestListener = (req, res) => {
    handOver.requestOn(req.socket)
    app(req, res)
  }
  return createHttpServer(onRequest, options.keepAliveMs, handOver.awaitsEvidence)
}

/** Health and metrics on a port of their own. */
export function createAdmin(services: Pick<Services, 'clock' | 'emit'>, options: ServerOptions): HttpServer {
  const app = createExpress(services.clock, services.emit)
  addAdminRoutes(app, options.admin)
  finish(app, services.emit, options.bodyMaxBytes)
  return createHttpServer(app, options.keepAliveMs)
}

function createExpress(clock: Clock, emit: Emit): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.set('query parser', 'simple')
  app.use((req, res, next) => {
    const startedAt = clock.now()
    const given = req.get('x-request-id')
    const id = given !== undefined && /^[\w.:-]{1,100}$/.test(given) ? given : randomUUID()
    res.locals.requestId = id
    res.setHeader('X-Request-Id', id)
    res.setHeader('Cache-Control', 'no-store')
    res.once('close', () => {
      emit({
        type: 'request',
        route: routeOf(res.locals),
        method: req.method,
        status: res.statusCode,
        seconds: (clock.now() - startedAt) / 1000,
        id,
      })
    })
    // A POST without a body needs no preflight: any page that a person on this machine opens could send it.
    if (isForeign(req.get('origin'), req.get('host'))) {
      throw new GatewayError('foreign-origin', { detail: 'executors and tools send no Origin header' })
    }
    next()
  })
  return app
}

function isForeign(origin: string | undefined, host: string | undefined): boolean {
  return origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== host)
}

/** Metrics are labelled with the route's template: a path would be a label without bounds. */
function markRoute(path: string): RequestHandler {
  return (_req, res, next) => {
    res.locals.route = path
    next()
  }
}

function routeOf(locals: Record<string, unknown>): string {
  return typeof locals.route === 'string' ? locals.route : 'none'
}

const expressPath = (path: string) => path.replaceAll(/\{(\w+)\}/g, ':$1')

function addAdminRoutes(app: Express, admin: AdminSources): void {
  // Live means that the event loop turns: a database outage must not restart every gateway.
  app.get('/livez', markRoute('/livez'), (_req, res) => void res.type('text').send('ok\n'))
  app.get('/readyz', markRoute('/readyz'), (_req, res) => {
    const reasons = admin.notReady()
    res
      .status(reasons.length === 0 ? 200 : 503)
      .type('text')
      .send(reasons.length === 0 ? 'ok\n' : `${reasons.join('\n')}\n`)
  })
  app.get('/metrics', markRoute('/metrics'), async (_req, res) => {
    const { contentType, text } = await admin.metrics()
    res.type(contentType).send(text)
  })
}

function refuseOtherMethods(app: Express, routes: readonly Route[]): void {
  const methods = new Map<string, string[]>()
  for (const { path, method } of routes)
    methods.set(path, [...(methods.get(path) ?? []), method.toUpperCase()])
  for (const [path, allowed] of methods) {
    app.all(expressPath(path), markRoute(path), (req) => {
      const Allow = allowed.join(', ')
      throw new GatewayError('method-not-allowed', {
        detail: `${req.method} is not among ${Allow}`,
        headers: { Allow },
      })
    })
  }
}

function finish(app: Express, emit: Emit, bodyMaxBytes: number): void {
  app.use(() => {
    throw new GatewayError('route-not-found', { detail: 'see /openapi.json for what there is' })
  })
  const onError: ErrorRequestHandler = (thrown: unknown, _req, res, _next) => {
    const error = bodyError(thrown, bodyMaxBytes) ?? pathError(thrown) ?? asGatewayError(thrown)
    if (error.code === 'internal') {
      emit({
        type: 'request failed',
        route: routeOf(res.locals),
        id: String(res.locals.requestId),
        error: asError(thrown),
      })
    }
    sendProblem(res, error)
  }
  app.use(onError)
}

/** A path that cannot be percent-decoded. */
function pathError(error: unknown): GatewayError | undefined {
  return error instanceof URIError ? new GatewayError('route-not-found') : undefined
}
