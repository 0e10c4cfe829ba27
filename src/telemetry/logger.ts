import { pino } from 'pino'
import type { GatewayEvent } from '../domain/events.ts'

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

export type Logger = { observe(event: GatewayEvent): void; flush(): void }

/** Foreign errors can quote a statement's values in their detail, so only what is named here is shown. */
function shown(error: Error): Record<string, unknown> {
  const { cause } = error
  return cause instanceof Error ? { ...plain(error), cause: plain(cause) } : plain(error)
}

function plain(error: Error): Record<string, unknown> {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  return { name: error.name, message: messageOf(error), code }
}

function messageOf(error: Error): string {
  // Data errors (class 22) and syntax errors (42) of Postgres can carry a piece of the value that was refused.
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  return /^(22|42)[0-9A-Z]{3}$/.test(code) ? 'withheld: may quote a value' : error.message
}

type Level = Exclude<LogLevel, 'silent'>

/** At which level each event is logged; undefined: not at all. */
function levelOf(event: GatewayEvent): Level | undefined {
  switch (event.type) {
    case 'started':
    case 'stopping':
    case 'stopped':
    case 'listener connected':
    case 'gateway joined':
      return 'info'
    case 'stop step failed':
    case 'request failed':
    case 'delivery report failed':
      return 'error'
    case 'proxied pull':
      return event.first && event.ack === 'auto' ? 'warn' : undefined
    case 'jobs returned':
      return event.jobs > 0 ? 'info' : undefined
    case 'database awaited':
    case 'gateways buried':
    case 'listener lost':
    case 'claim failed':
    case 'upkeep failed':
    case 'database error':
    case 'sequences mended':
    case 'problem found':
      return 'warn'
    case 'pull ended':
      // Once per pull, at its end; the many empty ones only when asked for.
      return event.outcome === 'empty' || event.outcome === 'jobs' ? 'debug' : 'info'
    case 'due':
      return event.promoted + event.expired > 0 ||
        Object.keys({ ...event.leasesLost, ...event.offersEnded }).length > 0
        ? 'debug'
        : undefined
    case 'delivery':
      return event.outcome === 'confirmed' ? 'debug' : 'info'
    case 'request':
    case 'settle':
    case 'heartbeat':
    case 'jobs ended':
    case 'published':
    case 'claim':
      return 'debug'
    case 'wake':
    case 'job claimed':
    case 'response written':
    case 'notification':
    case 'listener heartbeat':
      return undefined
  }
}

const advice: Partial<Record<GatewayEvent['type'], string>> = {
  'proxied pull': 'use explicit acknowledgement with offerSeconds: docs/proxies.md',
}

/** An event's name is the log's `event`, and is stable. `advice` says what an operator should do. */
function fieldsOf({ type, ...fields }: GatewayEvent): Record<string, unknown> {
  return {
    event: type,
    ...fields,
    ...('error' in fields ? { error: shown(fields.error) } : {}),
    ...(advice[type] === undefined ? {} : { advice: advice[type] }),
  }
}

/** JSON lines on stdout: `level`, `time` (RFC 3339), `event`, and the event's fields. */
export function createLogger(level: LogLevel, version: string): Logger {
  const log = pino({
    level,
    base: { service: 'pullgate', version },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  })
  // A restarting database makes the same warning many times a second; one of each kind per second is enough.
  const lastWarned = new Map<string, number>()
  return {
    observe(event) {
      const level = levelOf(event)
      // Most events are of levels that are off. Making their fields took 8 % of a pull's time.
      if (level === undefined || !log.isLevelEnabled(level)) return
      if (level === 'warn') {
        const now = performance.now()
        const kind = 'task' in event ? `${event.type} ${event.task}` : event.type
        if (now - (lastWarned.get(kind) ?? -Infinity) < 1000) return
        lastWarned.set(kind, now)
      }
      log[level](fieldsOf(event))
    },
    flush: () => log.flush(),
  }
}
