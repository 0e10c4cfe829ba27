import type { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { GatewayError } from '../../src/domain/errors.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { createLogger, logLevels } from '../../src/telemetry/logger.ts'

const written = vi.hoisted((): string[] => [])

// pino writes past process.stdout; here it writes to a list.
vi.mock('pino', async (original) => {
  const real = await original<{ pino: typeof pino }>()
  const toList = (options: object) => real.pino(options, { write: (line: string) => void written.push(line) })
  return { ...real, pino: Object.assign(toList, real.pino) }
})

beforeEach(() => {
  written.length = 0
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => void vi.useRealTimers())

const lines = () => written.map((line) => JSON.parse(line) as Record<string, unknown>)

const secret = 'SeCrEt-42'

/** As pg throws them: what is refused can be quoted in any of these. */
function databaseError(code: string, message: string): Error {
  const quoting = [
    'detail',
    'hint',
    'where',
    'internalQuery',
    'query',
    'parameters',
    'schema',
    'column',
    'routine',
  ]
  return Object.assign(new Error(message), { code }, Object.fromEntries(quoting.map((key) => [key, secret])))
}

const error = new GatewayError('internal', {
  detail: 'it broke',
  cause: databaseError('22P02', `no number: "${secret}"`),
})

const everyEvent: GatewayEvent[] = [
  { type: 'started', url: 'http://x', adminUrl: 'http://x', revision: 1, seconds: 1 },
  { type: 'stopping', reason: 'SIGTERM' },
  { type: 'stopped', seconds: 1 },
  { type: 'stop step failed', step: 'port', error },
  { type: 'wake', cause: 'due' },
  { type: 'claim', cause: 'due', topic: 'jobs_a', jobs: 1, seconds: 1 },
  { type: 'claim failed', topic: 'jobs_a', seconds: 1, error },
  { type: 'job claimed', topic: 'jobs_a', readySeconds: 1 },
  { type: 'pull ended', outcome: 'aborted', waitSeconds: 1, jobs: 0, subscription: 's' },
  { type: 'response written', wakeSeconds: 1 },
  { type: 'proxied pull', ack: 'auto', first: true },
  { type: 'delivery', outcome: 'in doubt', jobs: 1 },
  { type: 'delivery report failed', dropped: 1, error },
  { type: 'settle', verb: 'fail', status: 'lost' },
  { type: 'heartbeat', status: 'ok' },
  { type: 'jobs ended', topic: 'jobs_a', state: 'failed', jobs: 1 },
  { type: 'published', jobs: 1 },
  { type: 'due', promoted: 1, expired: 0, leasesLost: { ready: 1 }, offersEnded: {} },
  { type: 'upkeep failed', task: 'due', error },
  { type: 'notification', result: 'invalid' },
  { type: 'listener connected' },
  { type: 'listener lost', cause: 'server', reason: 'terminated' },
  { type: 'listener heartbeat', seconds: 1 },
  { type: 'database error', sqlState: '22P02', error },
  { type: 'request', route: '/x', method: 'GET', status: 200, seconds: 1, held: false, id: 'r' },
  { type: 'request failed', route: '/x', id: 'r', error },
]

describe('a line', () => {
  test('is JSON with level, time, service, version, the event by name, and its fields', () => {
    createLogger('info', '1.2.3').observe({ type: 'stopping', reason: 'SIGTERM' })
    expect(lines()).toEqual([
      {
        ...{ level: 'info', service: 'pullgate', version: '1.2.3', event: 'stopping', reason: 'SIGTERM' },
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as unknown,
      },
    ])
  })

  test.each(everyEvent)('of $type shows no value that the database quoted', (event) => {
    createLogger('debug', '1').observe(event)
    expect(written.join()).not.toContain(secret)
    expect(written.join()).not.toContain('stack')
    if ('error' in event) {
      expect(lines()).toMatchObject([
        {
          event: event.type,
          error: {
            ...{ name: 'GatewayError', message: 'it broke', code: 'internal' },
            cause: { code: '22P02', message: 'withheld: may quote a value' },
          },
        },
      ])
    }
  })

  test.each([
    ['22P02', true],
    ['22003', true],
    ['42601', true],
    ['57P01', false],
    ['ECONNREFUSED', false],
  ])('withholds the message of %s: %s', (code, withheld) => {
    createLogger('debug', '1').observe({
      type: 'claim failed',
      topic: 'a',
      seconds: 1,
      error: databaseError(code, 'what pg says'),
    })
    expect(lines()).toMatchObject([
      { error: { code, message: withheld ? 'withheld: may quote a value' : 'what pg says' } },
    ])
  })

  test('of an error whose code is no text shows none', () => {
    const odd = Object.assign(new Error('odd'), { code: { secret } })
    createLogger('debug', '1').observe({ type: 'request failed', route: '/', id: 'r', error: odd })
    expect(lines()).toMatchObject([{ error: { message: 'odd' } }])
    expect(written.join()).not.toContain(secret)
  })
})

test('no event has a field for a job spec, a lease or a token', () => {
  const fields = new Set(everyEvent.flatMap((event) => Object.keys(event)))
  for (const field of fields)
    expect(field).not.toMatch(/spec|lease(?!sLost)|token|value|sql(?!State)|payload|query/i)
})

describe('levels', () => {
  const shownAt = (level: (typeof logLevels)[number]) => {
    written.length = 0
    const logger = createLogger(level, '1')
    for (const event of everyEvent) logger.observe(event)
    return lines().map(({ event }) => event)
  }

  test('each shows what is above it as well, silent nothing', () => {
    const [debug, info, warn, errors, silent] = logLevels.map(shownAt)
    expect(errors).toEqual(['stop step failed', 'delivery report failed', 'request failed'])
    expect(warn).toEqual(
      expect.arrayContaining([...(errors ?? []), 'claim failed', 'listener lost', 'database error']),
    )
    expect(info).toEqual(
      expect.arrayContaining([...(warn ?? []), 'started', 'stopped', 'pull ended', 'delivery']),
    )
    expect(debug).toEqual(expect.arrayContaining([...(info ?? []), 'settle', 'published', 'request', 'due']))
    expect(debug?.length).toBeGreaterThan(info?.length ?? 0)
    expect(silent).toEqual([])
  })

  test('what happens for every pull is shown only when asked for', () => {
    const logger = createLogger('info', '1')
    for (const outcome of ['jobs', 'empty'] as const) {
      logger.observe({ type: 'pull ended', outcome, waitSeconds: 1, jobs: 0, subscription: 's' })
    }
    logger.observe({ type: 'delivery', outcome: 'confirmed', jobs: 1 })
    logger.observe({ type: 'due', promoted: 0, expired: 0, leasesLost: {}, offersEnded: {} })
    expect(written).toEqual([])
  })
})

describe('warnings', () => {
  const lost: GatewayEvent = { type: 'listener lost', cause: 'server', reason: 'terminated' }

  test('of one kind are at most one a second', () => {
    const logger = createLogger('info', '1')
    for (let n = 0; n < 100; n += 1) logger.observe(lost)
    logger.observe({ type: 'claim failed', topic: 'a', seconds: 1, error })
    expect(lines().map(({ event }) => event)).toEqual(['listener lost', 'claim failed'])
    vi.advanceTimersByTime(999)
    logger.observe(lost)
    expect(written).toHaveLength(2)
    vi.advanceTimersByTime(1)
    logger.observe(lost)
    expect(written).toHaveLength(3)
  })

  test('errors are all shown', () => {
    const logger = createLogger('info', '1')
    for (let n = 0; n < 3; n += 1) logger.observe({ type: 'request failed', route: '/', id: 'r', error })
    expect(written).toHaveLength(3)
  })
})

test('automatic acknowledgement through a proxy is warned of once, explicit acknowledgement never', () => {
  const log = createLogger('debug', '1.2.3')
  log.observe({ type: 'proxied pull', ack: 'explicit', first: true })
  log.observe({ type: 'proxied pull', ack: 'auto', first: true })
  log.observe({ type: 'proxied pull', ack: 'auto', first: false })
  expect(lines()).toEqual([
    expect.objectContaining({
      ...{ level: 'warn', event: 'proxied pull', ack: 'auto' },
      advice: 'use explicit acknowledgement with offerSeconds: docs/proxies.md',
    }),
  ])
})
