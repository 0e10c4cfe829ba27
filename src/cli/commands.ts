import { parseArgs } from 'node:util'
import { readConfig } from '../config.ts'
import type { Config } from '../config.ts'
import { runningServerUrl } from '../db/embedded-url.ts'
import { explained } from '../db/explain.ts'
import type { Purpose } from '../db/explain.ts'
import { withClient } from '../db/home.ts'
import type { Work } from '../db/home.ts'
import { createRoles, migrate } from '../db/migrations.ts'
import { SchemaError, whenThere } from '../db/start-up.ts'
import { serve } from '../main.ts'
import { version } from '../version.ts'
import { demo } from './demo/demo.ts'
import { runDoctor } from './doctor.ts'

type Flags = { readonly once: boolean }

type Command = {
  readonly summary: string
  /** Resolves to the exit code. */
  run(config: Config, flags: Flags): number | Promise<number>
}

const commands: Readonly<Record<string, Command>> = {
  serve: {
    summary: 'the gateway; without DATABASE_URL on a Postgres of its own',
    run: serve,
  },
  migrate: {
    summary: 'bring the schema of DATABASE_URL up to date',
    run: runMigrate,
  },
  roles: {
    summary: "create the roles pullgate_* in DATABASE_URL's cluster and grant them their rights",
    run: runRoles,
  },
  doctor: {
    summary: 'what a person should look at in DATABASE_URL; exit 1 if there is anything',
    run: (config) => onDatabase(config, 'doctor', (client) => runDoctor(client, (line) => console.log(line))),
  },
  health: {
    summary: 'exit 0 if the gateway on PULLGATE_PORT (or PULLGATE_ADMIN_PORT) is ready',
    run: runHealth,
  },
  demo: {
    summary: 'gateway, publisher and executors at work; --once: 200 jobs, checked',
    run: demo,
  },
  url: {
    summary: 'the database: DATABASE_URL, or that of the Postgres which serve runs here',
    run: runUrl,
  },
}

const usage = `pullgate ${version}: publish jobs with one SQL call, pull them with one HTTP long poll

${Object.entries(commands)
  .map(([name, { summary }]) => `  pullgate ${name.padEnd(9)} ${summary}\n`)
  .join('')}  pullgate version

Settings come from the environment: see docs/configuration.md.
`

/** Does the work on DATABASE_URL, once that answers. Rejects with what to do. */
function onDatabase<T>(config: Config, purpose: Purpose, work: Work<T>): Promise<T> {
  const { DATABASE_URL: url, PULLGATE_CONNECT_WAIT_SECONDS: seconds } = config
  if (url === undefined) {
    throw new Error(
      'set DATABASE_URL to the database, e.g. postgres://user:password@host:5432/name; ' +
        'that of a running `npm start`: DATABASE_URL=$(npm run -s url)',
    )
  }
  const setting = 'DATABASE_URL'
  const onWait = (reason: string) => console.error(`pullgate: waits up to ${seconds} s: ${reason}`)
  return explained(setting, purpose, () =>
    whenThere({ setting, purpose, seconds, onWait }, () => withClient(url, work)),
  )
}

async function runMigrate(config: Config): Promise<number> {
  const { revision, applied, mended } = await onDatabase(config, 'migrate', (client) => migrate(client))
  for (const name of applied) console.log(`applied ${name}`)
  for (const name of mended) console.log(`moved ${name} forward: it was behind`)
  console.log(`schema revision ${revision}${applied.length + mended.length === 0 ? ', nothing to do' : ''}`)
  return 0
}

async function runRoles(config: Config): Promise<number> {
  await onDatabase(config, 'roles', createRoles)
  console.log('roles pullgate_owner, pullgate_publisher, pullgate_gateway, pullgate_monitor are in place')
  return 0
}

async function runHealth(config: Config): Promise<number> {
  // A gateway that listens on every address is asked on the loopback one.
  const host = ['0.0.0.0', '::'].includes(config.PULLGATE_HOST) ? '127.0.0.1' : config.PULLGATE_HOST
  const address = host.includes(':') ? `[${host}]` : host
  const port = config.PULLGATE_ADMIN_PORT ?? config.PULLGATE_PORT
  const url = `http://${address}:${port}`
  const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(3_000) }).catch(
    (cause: unknown) => {
      const settings = 'check PULLGATE_PORT or PULLGATE_ADMIN_PORT'
      throw new Error(`no gateway answers at ${url}: ${settings} (${messageOf(cause)})`, { cause })
    },
  )
  process.stdout.write(await response.text())
  return response.ok ? 0 : 1
}

function runUrl(config: Config): number {
  console.log(config.DATABASE_URL ?? runningServerUrl(config.PULLGATE_DATA_DIR))
  return 0
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        once: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false, short: 'h' },
        version: { type: 'boolean', default: false, short: 'v' },
      },
    })
  } catch (error) {
    throw new Error(`${messageOf(error).split('. ')[0] ?? ''}; see pullgate help`, { cause: error })
  }
}

/** Runs the command on these arguments and settings. Resolves to the exit code; rejects with what to do. */
export async function run(args: readonly string[], environment: NodeJS.ProcessEnv): Promise<number> {
  const { positionals, values } = parse(args)
  const [name = values.version ? 'version' : 'help', ...rest] = positionals
  if (rest.length > 0) throw new Error(`unexpected argument: ${rest[0] ?? ''}; see pullgate help`)
  if (values.once && name !== 'demo') throw new Error('--once belongs to demo')
  if (values.help || name === 'help') {
    process.stdout.write(usage)
    return 0
  }
  if (values.version || name === 'version') {
    console.log(version)
    return 0
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) throw new Error(`unknown command: ${name}; see pullgate help`)
  return command.run(readConfig(environment), { once: values.once })
}

/** Runs the command; sets the exit code. */
export async function main(args: readonly string[]): Promise<void> {
  // Whoever reads the output may leave first (`pullgate demo | head`): that must not keep the stop from being done.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
  try {
    process.exitCode = await run(args, process.env)
  } catch (error) {
    console.error(`pullgate: ${messageOf(error)}`)
    process.exitCode = error instanceof SchemaError ? error.exitCode : 1
  }
  // Whatever did not stop in time keeps the process no longer.
  setTimeout(() => process.exit(), 1_000).unref()
}

/** A connection that was refused on several addresses comes as an AggregateError without a message. */
function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join('; ')
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error && error.message === 'fetch failed'
    ? messageOf(error.cause)
    : error.message
}
