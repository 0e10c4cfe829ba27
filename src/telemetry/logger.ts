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

/** What each event is in the log; undefined: nothing. An event's name is the log's `event`, and is stable. */
function entryOf(event: GatewayEvent): { level: Level; fields: Record<string, unknown> } | undefined {
  const { type, ...fields } = event
  switch (type) {
    case 'started':
    case 'stopping':
    case 'stopped':
    case 'listener connected':
      return { level: 'info', fields }
    case 'listener lost':
      return { level: 'warn', fields }
    case 'stop step failed':
    case 'request failed':
    case 'delivery report failed':
      return { level: 'error', fields: { ...fields, error: shown(event.error) } }
    case 'claim failed':
    case 'upkeep failed':
    case 'database error':
      return { level: 'warn', fields: { ...fields, error: shown(event.error) } }
    case 'pull ended':
      // Once per pull, at its end; the many empty ones only when asked for.
      return { level: event.outcome === 'empty' || event.outcome === 'jobs' ? 'debug' : 'info', fields }
    case 'request':
      return { level: 'debug', fields }
    case 'due':
      return event.promoted + event.expired + Object.keys(event.leasesLost).length > 0
        ? { level: 'debug', fields }
        : undefined
    case 'delivery':
      return { level: event.outcome === 'confirmed' ? 'debug' : 'info', fields }
    case 'settle':
    case 'heartbeat':
    case 'published':
    case 'claim':
      return { level: 'debug', fields }
    case 'wake':
    case 'job claimed':
    case 'response written':
    case 'notification':
    case 'listener heartbeat':
      return undefined
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
      const entry = entryOf(event)
      if (entry === undefined) return
      if (entry.level === 'warn') {
        const now = performance.now()
        const kind = 'task' in event ? `${event.type} ${event.task}` : event.type
        if (now - (lastWarned.get(kind) ?? -Infinity) < 1000) return
        lastWarned.set(kind, now)
      }
      log[entry.level]({ event: event.type, ...entry.fields })
    },
    flush: () => log.flush(),
  }
}
