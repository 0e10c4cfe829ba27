import express from 'express'
import type { ErrorRequestHandler, Express, RequestHandler, Response } from 'express'
import { GatewayError } from '../domain/errors.ts'
import { jsonType, sendText } from './exchange.ts'
import type { Exchange } from './exchange.ts'
import type { Route } from './route.ts'
import type { Serve } from './serve.ts'

export type AdminSources = {
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>
  /** What keeps the gateway from being ready; empty when it is. */
  readonly notReady: () => readonly string[]
  /** What it does worse than it should; it is ready all the same. */
  readonly degraded: () => readonly string[]
}

const textType = 'text/plain; charset=utf-8'

/** Matches what is not hot; express answers nothing itself. */
export function createExpress(): Express {
  const app = express()
  app.disable('x-powered-by')
  app.set('query parser', 'simple')
  return app
}

/** Express has swapped the prototype; the fields are there. */
function exchangeOf(res: Response): Exchange {
  return res as unknown as Exchange
}

const expressPath = (path: string) => path.replaceAll(/\{(\w+)\}/g, ':$1')

export function addAdminRoutes(app: Express, admin: AdminSources): void {
  // Live means that the event loop turns: a database outage must not restart every gateway.
  app.get('/livez', markRoute('/livez'), (_req, res) => sendText(exchangeOf(res), 200, textType, 'ok\n'))
  app.get('/readyz', markRoute('/readyz'), (_req, res) => {
    const reasons = admin.notReady()
    const ready = reasons.length === 0
    const lines = ready ? ['ok', ...admin.degraded().map((what) => `degraded: ${what}`)] : reasons
    sendText(exchangeOf(res), ready ? 200 : 503, textType, `${lines.join('\n')}\n`)
  })
  app.get('/metrics', markRoute('/metrics'), async (_req, res) => {
    const { contentType, text } = await admin.metrics()
    sendText(exchangeOf(res), 200, contentType, text)
  })
}

/** The routes, also those that hot-routes.ts takes when they are written plainly; 405 for their other methods. */
export function addRoutes(app: Express, routes: readonly Route[], serve: Serve, description: string): void {
  app.get('/openapi.json', (_req, res) => sendText(exchangeOf(res), 200, jsonType, description))
  for (const route of routes) {
    app[route.method](expressPath(route.path), (req, res) =>
      serve.route(route, exchangeOf(res), req.params as Record<string, string>, req.query),
    )
  }
  refuseOtherMethods(app, routes)
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

function markRoute(path: string): RequestHandler {
  return (_req, res, next) => {
    exchangeOf(res).route = path
    next()
  }
}

/** To be added last: 404, and the answer to what was thrown. */
export function refuseTheRest(app: Express, serve: Serve): void {
  app.use(() => {
    throw new GatewayError('route-not-found', { detail: 'see /openapi.json for what there is' })
  })
  const onError: ErrorRequestHandler = (thrown: unknown, _req, res, _next) =>
    serve.failure(exchangeOf(res), thrown)
  app.use(onError)
}
