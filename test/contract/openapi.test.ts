import { describe, expect, test } from 'vitest'
import { openApi } from '../../src/http/openapi.ts'
import type { Route } from '../../src/http/route.ts'
import { apiRoutes } from '../../src/http/server.ts'
import type { Services } from '../../src/http/services.ts'

// What /openapi.json says. Making the routes asks nothing of the services.

type Json = null | string | number | boolean | Json[] | { [key: string]: Json }
type Schema = {
  properties?: Record<string, Json>
  required?: string[]
  additionalProperties?: Json
  $ref?: string
}
type Parameter = { name: string; in: string; required?: boolean; schema: Json }
type Content = Record<string, { schema: Schema }>
type Operation = {
  summary: string
  parameters: Parameter[]
  requestBody?: { required: boolean; content: Content }
  responses: Record<string, { description: string; content?: Content }>
}
type Description = {
  openapi: string
  info: { title: string; version: string }
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
}

const routes = apiRoutes({} as Services)
// As it is sent.
const description = JSON.parse(JSON.stringify(openApi(routes, '1.2.3'))) as Description

/** Every object in a value, with where it is. */
function objectsIn(value: Json, path = '#'): { path: string; object: Record<string, Json> }[] {
  if (typeof value !== 'object' || value === null) return []
  const inner = Object.entries(value).flatMap(([key, one]) => objectsIn(one, `${path}/${key}`))
  return Array.isArray(value) ? inner : [{ path, object: value }, ...inner]
}
const objects = objectsIn(JSON.parse(JSON.stringify(description)) as Json)

const operationOf = ({ path, method }: Route) => {
  const operation = description.paths[path]?.[method]
  if (operation === undefined) throw new Error(`${method} ${path} is not described`)
  return operation
}
const resolve = (schema: Schema | undefined): Schema =>
  schema?.$ref === undefined
    ? (schema ?? {})
    : (description.components.schemas[schema.$ref.split('/').at(-1) ?? ''] ?? {})
const bodyOf = (operation: Operation) => resolve(operation.requestBody?.content['application/json']?.schema)

test('is OpenAPI 3.1', () => {
  expect(description.openapi).toMatch(/^3\.1\.\d+$/)
  expect(description.info).toEqual({ title: 'pullgate', version: '1.2.3' })
  expect(Object.keys(description).toSorted()).toEqual(['components', 'info', 'openapi', 'paths'])
})

test('has every route, and no other', () => {
  const described = Object.entries(description.paths).flatMap(([path, item]) =>
    Object.keys(item).map((method) => `${method} ${path}`),
  )
  expect(described.toSorted()).toEqual(routes.map(({ method, path }) => `${method} ${path}`).toSorted())
  expect(described.length).toBeGreaterThan(12)
})

test('every reference leads somewhere, every component is referred to', () => {
  const references = objects.flatMap(({ object }) => (typeof object.$ref === 'string' ? [object.$ref] : []))
  const names = Object.keys(description.components.schemas).map((name) => `#/components/schemas/${name}`)
  expect(references.filter((reference) => !names.includes(reference))).toEqual([])
  const inside = new Set(references)
  expect(names.filter((name) => !inside.has(name))).toEqual([])
})

test('what is required is described', () => {
  for (const { path, object } of objects) {
    if (!Array.isArray(object.required)) continue
    expect(Object.keys(object.properties ?? {}), path).toEqual(expect.arrayContaining(object.required))
  }
  expect(Object.keys(description.components.schemas.PulledJob?.properties ?? {})).toContain('id')
})

test('bears no marks of the library that made it', () => {
  const text = JSON.stringify(description)
  for (const mark of ['$schema', '$defs', '$id', '__schema', '~standard', '_zod'])
    expect(text).not.toContain(`"${mark}`)
  const limits: Json[] = [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]
  for (const { path, object } of objects) {
    expect(limits, path).not.toContain(object.minimum ?? 0)
    expect(limits, path).not.toContain(object.maximum ?? 0)
    // A format says it already; the pattern that the library checks it with is its own affair.
    if (typeof object.format === 'string') expect(object, path).not.toHaveProperty('pattern')
    expect(typeof object.id === 'string', path).toBe(false)
  }
})

describe.each(routes.map((route) => ({ route, name: `${route.method} ${route.path}` })))(
  '$name',
  ({ route }) => {
    const operation = operationOf(route)

    test('has a summary, and answers with descriptions', () => {
      expect(operation.summary.length).toBeGreaterThan(10)
      expect(Object.keys(operation.responses)).toContain('default')
      expect(Object.keys(operation.responses).some((status) => /^2\d\d$/.test(status))).toBe(true)
      for (const answer of Object.values(operation.responses)) expect(answer.description).not.toBe('')
    })

    test('names its parameters', () => {
      const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
      const parameters = operation.parameters.map(({ name, in: place }) => `${place} ${name}`)
      expect(new Set(parameters).size).toBe(parameters.length)
      const named = operation.parameters.filter((parameter) => parameter.in === 'path')
      expect(named.map(({ name }) => name)).toEqual(inPath)
      for (const { required } of named) expect(required).toBe(true)
      for (const parameter of operation.parameters) {
        expect(['path', 'query', 'header']).toContain(parameter.in)
        expect(Object.keys(parameter.schema as object)).not.toEqual([])
      }
    })

    test('takes only fields that it knows, and none of a later version', () => {
      const later = [
        ...['labels', 'group', 'concurrencyKey', 'tenant', 'fairnessKey', 'dependsOn', 'webhook', 'schedule'],
        ...['spec', 'state', 'limit', 'cursor', 'from', 'to', 'paused', 'maxRunning'],
      ]
      const body = bodyOf(operation)
      const fields = [...operation.parameters.map(({ name }) => name), ...Object.keys(body.properties ?? {})]
      expect(fields.filter((field) => later.includes(field))).toEqual([])
      expect(operation.requestBody === undefined || body.additionalProperties === false).toBe(true)
      const unknown = Object.fromEntries(later.map((field) => [field, 'x']))
      expect(route.query.safeParse(unknown).success).toBe(false)
      const issues = route.body?.safeParse(unknown).error?.issues ?? []
      const refused = issues.flatMap((issue) => (issue.code === 'unrecognized_keys' ? issue.keys : []))
      expect(refused).toEqual(route.body === undefined ? [] : later)
    })

    test('leaves its answers room to grow', () => {
      const closed = Object.values(operation.responses).flatMap(({ content = {} }) =>
        Object.values(content).filter(({ schema }) => resolve(schema).additionalProperties === false),
      )
      expect(closed).toEqual([])
    })
  },
)

test('problems are problems everywhere', () => {
  for (const route of routes) {
    const schema = operationOf(route).responses.default?.content?.['application/problem+json']?.schema
    expect(schema?.$ref).toBe('#/components/schemas/Problem')
  }
})
