#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { SchemaError } from '../app.ts'
import { readConfig } from '../config.ts'
import type { Config } from '../config.ts'
import { runningServerUrl } from '../db/embedded-url.ts'
import { withClient } from '../db/home.ts'
import { createRoles, migrate } from '../db/migrations.ts'
import { serve } from '../main.ts'
import { version } from '../version.ts'
import { demo } from './demo/demo.ts'

const usage = `pullgate ${version}: publish jobs with one SQL call, pull them with one HTTP long poll

  pullgate serve     the gateway; without DATABASE_URL on a Postgres of its own
  pullgate migrate   bring the schema of DATABASE_URL up to date
  pullgate roles     create the roles pullgate_* in DATABASE_URL's cluster and grant them their rights
  pullgate health    exit 0 if the gateway on PULLGATE_PORT (or PULLGATE_ADMIN_PORT) is ready
  pullgate demo      gateway, publisher and executors at work; --once: 200 jobs, checked
  pullgate url       the database: DATABASE_URL, or that of the Postgres which serve runs here
  pullgate version

Settings come from the environment: see docs/configuration.md.
`

function requireUrl(config: Config): string {
  if (config.DATABASE_URL !== undefined) return config.DATABASE_URL
  throw new Error('set DATABASE_URL to the database, e.g. postgres://user:password@host:5432/name')
}

async function runMigrate(config: Config): Promise<number> {
  const { revision, applied } = await withClient(requireUrl(config), (client) => migrate(client))
  for (const name of applied) console.log(`applied ${name}`)
  console.log(`schema revision ${revision}${applied.length === 0 ? ', nothing to do' : ''}`)
  return 0
}

async function runRoles(config: Config): Promise<number> {
  await withClient(requireUrl(config), (client) => createRoles(client))
  console.log('roles pullgate_owner, pullgate_publisher, pullgate_gateway, pullgate_monitor are in place')
  return 0
}

async function runHealth(config: Config): Promise<number> {
  // A gateway that listens on every address is asked on the loopback one.
  const host = ['0.0.0.0', '::'].includes(config.PULLGATE_HOST) ? '127.0.0.1' : config.PULLGATE_HOST
  const address = host.includes(':') ? `[${host}]` : host
  const port = config.PULLGATE_ADMIN_PORT ?? config.PULLGATE_PORT
  const response = await fetch(`http://${address}:${port}/readyz`, { signal: AbortSignal.timeout(3_000) })
  process.stdout.write(await response.text())
  return response.ok ? 0 : 1
}

async function run(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      once: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false, short: 'h' },
    },
  })
  const [command = 'help', ...rest] = positionals
  if (rest.length > 0) throw new Error(`unexpected argument: ${rest[0] ?? ''}; see pullgate help`)
  if (values.once && command !== 'demo') throw new Error('--once belongs to demo')
  if (values.help || command === 'help') {
    process.stdout.write(usage)
    return 0
  }
  if (command === 'version') {
    console.log(version)
    return 0
  }
  const config = readConfig(process.env)
  switch (command) {
    case 'serve':
      return serve(config)
    case 'migrate':
      return runMigrate(config)
    case 'roles':
      return runRoles(config)
    case 'health':
      return runHealth(config)
    case 'url':
      console.log(config.DATABASE_URL ?? runningServerUrl(config.PULLGATE_DATA_DIR))
      return 0
    case 'demo':
      return demo(config, { once: values.once })
    default:
      throw new Error(`unknown command: ${command}; see pullgate help`)
  }
}

// Whoever reads the output may leave first (`pullgate demo | head`): that must not keep the stop from being done.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

try {
  process.exitCode = await run(process.argv.slice(2))
} catch (error) {
  console.error(`pullgate: ${messageOf(error)}`)
  process.exitCode = error instanceof SchemaError ? error.exitCode : 1
}
// Whatever did not stop in time keeps the process no longer.
setTimeout(() => process.exit(), 1_000).unref()

/** A connection that was refused on several addresses comes as an AggregateError without a message. */
function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ')
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.message === 'fetch failed'
    ? messageOf(error.cause)
    : error.message
}
