import { z } from 'zod'
import { problemSchema } from './problem.ts'
import type { Route } from './route.ts'

type JsonSchema = Record<string, unknown>

/** The API as OpenAPI 3.1, from the routes themselves. */
export function openApi(routes: readonly Route[], version: string): JsonSchema {
  const components: JsonSchema = {}

  /** Named schemas move to components; what is left refers to them. */
  const schemaOf = (schema: z.ZodType, io: 'input' | 'output'): JsonSchema => {
    const {
      $schema: _,
      $defs,
      ...rest
    } = z.toJSONSchema(schema, {
      io,
      unrepresentable: 'any',
      override: ({ jsonSchema }) => tidy(jsonSchema, io),
    }) as JsonSchema & { $defs?: JsonSchema }
    Object.assign(components, rewriteRefs($defs ?? {}))
    return rewriteRefs(rest) as JsonSchema
  }
  const content = (schema: z.ZodType, io: 'input' | 'output', type = 'application/json') => ({
    [type]: { schema: schemaOf(schema, io) },
  })

  const problem = {
    description: 'A problem: see docs/errors.md',
    content: content(problemSchema, 'output', 'application/problem+json'),
  }
  const paths: Record<string, JsonSchema> = {}
  for (const route of routes) {
    const responses: JsonSchema = { default: problem }
    for (const [status, { description, schema }] of Object.entries(route.responses)) {
      responses[status] = {
        description,
        ...(schema === undefined ? {} : { content: content(schema, 'output') }),
      }
    }
    paths[route.path] = {
      ...paths[route.path],
      [route.method]: {
        summary: route.summary,
        parameters: [
          ...pathParameters(route.path),
          ...parametersOf('query', schemaOf(route.query, 'output')),
          ...(route.headers === undefined ? [] : parametersOf('header', schemaOf(route.headers, 'output'))),
        ],
        ...(route.body === undefined
          ? {}
          : { requestBody: { required: !route.bodyOptional, content: content(route.body, 'input') } }),
        responses,
      },
    }
  }
  return {
    openapi: '3.1.0',
    info: { title: 'pullgate', version },
    paths,
    components: { schemas: components },
  }
}

/** Takes out what says nothing to a reader, and lets answers grow in later versions. */
function tidy(schema: z.core.JSONSchema.BaseSchema, io: 'input' | 'output'): void {
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum
  if (schema.format !== undefined) delete schema.pattern
  if (io === 'output') delete schema.additionalProperties
}

function rewriteRefs(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(rewriteRefs)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      // The keyword; a property of that name has a schema, not a text.
      .filter(([key, inner]) => !((key === '$id' || key === 'id') && typeof inner === 'string'))
      .map(([key, inner]) => [
        key,
        key === '$ref' && typeof inner === 'string'
          ? inner.replace('#/$defs/', '#/components/schemas/')
          : rewriteRefs(inner),
      ]),
  )
}

function pathParameters(path: string): JsonSchema[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }))
}

function parametersOf(place: 'query' | 'header', schema: JsonSchema): JsonSchema[] {
  const properties = (schema.properties ?? {}) as Record<string, JsonSchema>
  return Object.entries(properties).map(([name, property]) => ({ name, in: place, schema: property }))
}
