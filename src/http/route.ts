import type { z } from 'zod'
import { GatewayError } from '../domain/errors.ts'
import type { FieldError } from '../domain/errors.ts'
import type { Json } from './body.ts'
import type { Exchange } from './exchange.ts'

type Schema = z.ZodType
type Out<S> = S extends Schema ? z.output<S> : undefined

export type Params = Readonly<Record<string, string>>

export type Reply = {
  readonly status: number
  /** JSON text where the answer carries text that must not be parsed, else a value. */
  readonly body?: unknown
  readonly text?: string
  readonly headers?: Readonly<Record<string, string>>
}

export type Context<Query, Body> = {
  readonly exchange: Exchange
  readonly params: Params
  readonly query: Query
  readonly body: Body
  /** The body as it came, '' without one. */
  readonly bodyText: string
}

/**
 * A route as data: what is served, by whichever matcher, and what /openapi.json says of it are the same object. A
 * handler returns its reply, or undefined when it answers in its own time.
 */
export type Route = {
  readonly method: 'get' | 'post' | 'patch' | 'delete'
  /** Parameters in braces. */
  readonly path: string
  /** Once or twice per job: matched ahead of express (hot-routes.ts). */
  readonly hot: boolean
  readonly summary: string
  readonly query: Schema
  /** Headers that the route reads, for their description. */
  readonly headers?: Schema | undefined
  readonly body?: Schema | undefined
  /** The body may be left out; then the schema's defaults count. */
  readonly bodyOptional: boolean
  readonly responses: Readonly<Record<number, { readonly description: string; readonly schema?: Schema }>>
  /** Validates what came, then has it handled. Rejects with `invalid-request` or what the handler throws. */
  readonly handle: (exchange: Exchange, came: Came) => Promise<Reply | undefined>
}

/** What came with a request, not validated. */
export type Came = {
  readonly params: Params
  readonly query: unknown
  readonly json: Json | undefined
}

type Definition<Query extends Schema, Body extends Schema | undefined> = {
  readonly method: Route['method']
  readonly path: string
  readonly hot?: boolean
  readonly summary: string
  readonly query: Query
  readonly headers?: Schema
  readonly body?: Body
  readonly bodyOptional?: boolean
  readonly responses: Route['responses']
  readonly handle: (context: Context<Out<Query>, Out<Body>>) => Promise<Reply | undefined>
}

export function defineRoute<Query extends Schema, Body extends Schema | undefined = undefined>(
  definition: Definition<Query, Body>,
): Route {
  const { method, path, query: querySchema, body: bodySchema, bodyOptional = false, handle } = definition
  const bodyOf = (json: Json | undefined): unknown => {
    if (bodySchema === undefined) {
      if (json === undefined) return undefined
      throw new GatewayError('invalid-request', { detail: `${method.toUpperCase()} ${path} takes no body` })
    }
    if (json !== undefined) return validate(bodySchema, 'body', json.value)
    if (bodyOptional) return validate(bodySchema, 'body', {})
    throw new GatewayError('invalid-request', { detail: 'send a JSON object as the body' })
  }
  return {
    ...definition,
    hot: definition.hot ?? false,
    bodyOptional,
    handle: (exchange, { params, query, json }) =>
      handle({
        exchange,
        params,
        query: validate(querySchema, 'query', query) as Out<Query>,
        body: bodyOf(json) as Out<Body>,
        bodyText: json?.text ?? '',
      }),
  }
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
