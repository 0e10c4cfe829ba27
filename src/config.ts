import { z } from 'zod'
import { databaseUrlMistake } from './domain/database-url.ts'
import { logLevels } from './telemetry/logger.ts'

const number = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,12}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.int().min(min).max(max))

const postgresUrl = z.string().superRefine((text, context) => {
  const message = databaseUrlMistake(text)
  if (message !== undefined) context.addIssue({ code: 'custom', message })
})

/** Every key of the environment that pullgate reads. docs/configuration.md lists them; a test compares. */
const keys = {
  DATABASE_URL: postgresUrl.optional(),
  PULLGATE_LISTEN_DATABASE_URL: postgresUrl.optional(),
  PULLGATE_HOST: z.string().min(1).default('127.0.0.1'),
  PULLGATE_PORT: number(0, 65_535).default(8080),
  PULLGATE_ADMIN_PORT: number(0, 65_535).optional(),
  PULLGATE_AUTH: z.enum(['off'], 'must be off, or not be set').optional(),
  PULLGATE_DATA_DIR: z.string().min(1).optional(),
  PULLGATE_LOG_LEVEL: z.enum(logLevels).default('info'),
  PULLGATE_POOL_MAX: number(2, 200).default(10),
  PULLGATE_CONNECT_WAIT_SECONDS: number(0, 3600).default(30),
  PULLGATE_STATEMENT_TIMEOUT_MS: number(100, 600_000).default(10_000),
  PULLGATE_WAIT_SECONDS: number(0, 3600).default(25),
  PULLGATE_MAX_WAIT_SECONDS: number(1, 3600).default(55),
  PULLGATE_MAX_PARKED: number(1, 1_000_000).default(15_000),
  PULLGATE_BODY_MAX_BYTES: number(1024, 209_715_200).default(2_097_152),
  PULLGATE_BACKSTOP_MS: number(100, 60_000).default(1000),
  PULLGATE_KEEP_ALIVE_SECONDS: number(5, 86_400).default(650),
  PULLGATE_DRAIN_DELAY_SECONDS: number(0, 600).default(0),
  PULLGATE_STOP_TIMEOUT_SECONDS: number(1, 600).default(15),
  /** Read by `pullgate demo` only: the gateway that its executors pull from. */
  PULLGATE_URL: z.url({ protocol: /^https?$/ }).optional(),
}

export const configKeys = Object.keys(keys)

const schema = z.object(keys)

export type Config = z.output<typeof schema>

const loopback = /^(localhost|127(\.\d{1,3}){3}|::1)$/

export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

/**
 * The configuration, or a ConfigError that lists every mistake at once. An empty value counts as not set; a key that
 * begins with PULLGATE_ and is not known is a mistake. Values are never repeated in messages: they may be secret.
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''),
  )
  const mistakes = Object.keys(given)
    .filter(
      (key) => key.startsWith('PULLGATE_') && !configKeys.includes(key) && key !== 'PULLGATE_TEST_POSTGRES',
    )
    .map((key) => `${key}: is not a setting of pullgate: see docs/configuration.md`)
  const result = schema.safeParse(given)
  for (const issue of result.error?.issues ?? []) mistakes.push(`${issue.path.join('.')}: ${issue.message}`)
  if (!loopback.test(given.PULLGATE_HOST ?? '127.0.0.1') && given.PULLGATE_AUTH === undefined) {
    mistakes.push(
      'PULLGATE_HOST: an address that others can reach needs PULLGATE_AUTH=off, as there are no tokens yet',
    )
  }
  if (result.success && mistakes.length === 0) return result.data
  throw new ConfigError(
    `the configuration is not valid:\n${mistakes.map((mistake) => `  ${mistake}\n`).join('')}`,
  )
}
