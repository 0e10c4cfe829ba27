import type { Request, RequestHandler, Response } from 'express'
import type { z } from 'zod'
import { GatewayError } from '../domain/errors.ts'
import type { FieldError } from '../domain/errors.ts'
import { jsonBody } from './body.ts'

type Schema = z.ZodType
type Out<S> = S extends Schema ? z.output<S> : undefined

export type Reply = {
  readonly status: number
  /** JSON text where the answer carries text that must not be parsed, else a value. */
  readonly body?: unknown
  readonly text?: string
  readonly headers?: Readonly<Record<string, string>>
}

export type Context<Query, Body> = {
  readonly req: Request
  readonly res: Response
  readonly params: Readonly<Record<string, string>>
  readonly query: Query
  readonly body: Body
  /** The body as it came, '' without one. */
  readonly bodyText: string
}

/**
 * A route as data: what express serves and what /openapi.json says of it are the same object. A handler returns its
 * reply, or undefined when it answers in its own time.
 */
export type Route = {
  readonly method: 'get' | 'post' | 'patch' | 'delete'
  /** Parameters in braces. */
  readonly path: string
  readonly summary: string
  readonly query: Schema
  readonly body?: Schema | undefined
  /** The body may be left out; then the schema's defaults count. */
  readonly bodyOptional: boolean
  readonly responses: Readonly<Record<number, { readonly description: string; readonly schema?: Schema }>>
  readonly handle: RequestHandler
}

type Definition<Query extends Schema, Body extends Schema | undefined> = {
  readonly method: Route['method']
  readonly path: string
  readonly summary: string
  readonly query: Query
  readonly body?: Body
  readonly bodyOptional?: boolean
  readonly responses: Route['responses']
  readonly handle: (context: Context<Out<Query>, Out<Body>>) => Promise<Reply | undefined>
}

export function defineRoute<Query extends Schema, Body extends Schema | undefined = undefined>(
  definition: Definition<Query, Body>,
): Route {
  const { query, body, bodyOptional = false, handle } = definition
  return {
    ...definition,
    bodyOptional,
    handle: async (req, res) => {
      const json = jsonBody(req)
      if (json !== undefined && body === undefined) {
        throw new GatewayError('invalid-request', { detail: `${req.method} ${req.path} takes no body` })
      }
      if (json === undefined && body !== undefined && !bodyOptional) {
        throw new GatewayError('invalid-request', { detail: 'send a JSON object as the body' })
      }
      const reply = await handle({
        req,
        res,
        params: req.params as Record<string, string>,
        query: validate(query, 'query', req.query) as Out<Query>,
        body: (body === undefined
          ? undefined
          : validate(body, 'body', json === undefined ? {} : json.value)) as Out<Body>,
        bodyText: json?.text ?? '',
      })
      if (reply !== undefined) send(res, reply)
    },
  }
}

function send(res: Response, { status, body, text, headers = {} }: Reply): void {
  if (res.destroyed) return
  res.status(status).set(headers)
  const payload = text ?? (body === undefined ? undefined : JSON.stringify(body))
  if (payload === undefined) res.end()
  else res.type('json').send(payload)
}

/** Throws `invalid-request`, naming every field that is wrong. zod's messages quote no values. */
export function validate<S extends Schema>(schema: S, where: string, value: unknown): z.output<S> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const fields = result.error.issues.flatMap((issue): FieldError[] => {
    const path = issue.path.map(String).join('.')
    if (issue.code !== 'unrecognized_keys') {
      const missing = issue.code === 'invalid_type' && issue.message.endsWith('received undefined')
      return [{ field: path || where, message: missing ? 'is missing' : issue.message }]
    }
    return issue.keys.slice(0, 10).map((key) => ({
      field: [path, key.slice(0, 100)].filter(Boolean).join('.'),
      message: `is not a field of the ${where}`,
    }))
  })
  const detail = fields.map(({ field, message }) => `${field}: ${message}`).join('; ')
  throw new GatewayError('invalid-request', { detail, fields })
}
