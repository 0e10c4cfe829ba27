import { describe, expect, test } from 'vitest'
import { ConfigError, configKeys, readConfig } from '../../src/config.ts'

const secret = 'SeCrEt-42'

function mistakes(environment: Record<string, string>): string[] {
  try {
    readConfig(environment)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const [head, ...lines] = error.message.trimEnd().split('\n')
    expect(head).toBe('the configuration is not valid:')
    return lines.map((line) => line.trim())
  }
  return []
}

const keysOf = (lines: readonly string[]) =>
  [...new Set(lines.map((line) => line.slice(0, line.indexOf(':'))))].toSorted()

test('without a setting, all defaults count, and the gateway is for this host only', () => {
  expect(readConfig({})).toMatchObject({
    ...{ PULLGATE_HOST: '127.0.0.1', PULLGATE_PORT: 8080, PULLGATE_LOG_LEVEL: 'info', PULLGATE_POOL_MAX: 10 },
    ...{ PULLGATE_WAIT_SECONDS: 25, PULLGATE_MAX_WAIT_SECONDS: 55, PULLGATE_MAX_PARKED: 15_000 },
    ...{
      PULLGATE_BODY_MAX_BYTES: 2 * 1024 * 1024,
      PULLGATE_BACKSTOP_MS: 1_000,
      PULLGATE_DRAIN_DELAY_SECONDS: 0,
    },
  })
})

test('an idle connection outlasts the idle time-outs of common proxies, so that the proxy closes it', () => {
  const idleSeconds = { alb: 60, nginx: 60, traefik: 90, caddy: 120, azure: 240, google: 600 }
  const { PULLGATE_KEEP_ALIVE_SECONDS: keepAlive } = readConfig({})
  for (const seconds of Object.values(idleSeconds)) expect(keepAlive).toBeGreaterThan(seconds)
})

test('an empty value counts as not set', () => {
  const empty = Object.fromEntries(configKeys.map((key) => [key, '']))
  expect(readConfig({ ...empty, PULLGATE_TYPO: '' })).toEqual(readConfig({}))
})

test('every mistake is named at once, and no value', () => {
  const bad = Object.fromEntries(configKeys.map((key) => [key, secret]))
  const lines = mistakes({
    ...bad,
    PULLGATE_HOST: '0.0.0.0',
    PULLGATE_DATA_DIR: secret,
    PULLGATE_TYPO: secret,
    PULLGATE_AUTH: '',
  })
  // Any text is a directory.
  const expected = configKeys.filter((key) => key !== 'PULLGATE_DATA_DIR' && key !== 'PULLGATE_AUTH')
  expect(keysOf(lines)).toEqual([...expected, 'PULLGATE_TYPO'].toSorted())
  expect(lines.join('\n')).not.toContain(secret)
  expect(keysOf(mistakes({ PULLGATE_AUTH: secret }))).toEqual(['PULLGATE_AUTH'])
})

test('a mistake tells what would be right', () => {
  expect(mistakes({ PULLGATE_PORT: 'x' })).toEqual(['PULLGATE_PORT: must be a whole number from 0 to 65535'])
  expect(mistakes({ PULLGATE_PORT: '65536' })).toEqual([expect.stringMatching(/<=65535$/)])
  expect(mistakes({ PULLGATE_LOG_LEVEL: 'loud' })).toEqual([expect.stringContaining('"debug"')])
})

describe('numbers', () => {
  test.each(['-1', '1.5', '1e3', '0x10', ' 8', '8 ', '٨', '9'.repeat(13)])('%j is none', (text) => {
    expect(keysOf(mistakes({ PULLGATE_MAX_PARKED: text }))).toEqual(['PULLGATE_MAX_PARKED'])
  })
})

test.each(['PULLGATE_TYPO', 'PULLGATE_', 'PULLGATE_port'])('%s is not a setting', (key) => {
  expect(mistakes({ [key]: 'x' })).toEqual([
    `${key}: is not a setting of pullgate: see docs/configuration.md`,
  ])
})

test('what is not ours is left alone', () => {
  expect(
    mistakes({ PATH: '/bin', PGHOST: 'x', pullgate_port: 'x', PULLGATE_TEST_POSTGRES: 'container' }),
  ).toEqual([])
})

describe('database URLs', () => {
  test.each([
    'postgres://u:p@h:5432/d',
    'postgresql://h/d?sslmode=require',
    'postgresql:///d?host=/run/postgresql',
  ])('%s is taken', (url) => expect(readConfig({ DATABASE_URL: url }).DATABASE_URL).toBe(url))
  test.each(['mysql://h/d', 'h/d', 'http://h', `postgres://u:${secret}@h:port/d`])(
    '%s is refused, unquoted',
    (url) => {
      const lines = mistakes({ DATABASE_URL: url, PULLGATE_LISTEN_DATABASE_URL: url })
      expect(keysOf(lines)).toEqual(['DATABASE_URL', 'PULLGATE_LISTEN_DATABASE_URL'])
      expect(lines.join()).not.toContain(url)
    },
  )
})

describe('an address that others can reach', () => {
  test.each([
    '0.0.0.0',
    '::',
    '192.168.1.2',
    'example.org',
    'localhost.example.org',
    '127.0.0.1.example.org',
    '1127.0.0.1',
  ])('%s needs PULLGATE_AUTH=off', (host) => {
    expect(keysOf(mistakes({ PULLGATE_HOST: host }))).toEqual(['PULLGATE_HOST'])
    expect(readConfig({ PULLGATE_HOST: host, PULLGATE_AUTH: 'off' }).PULLGATE_HOST).toBe(host)
  })
  test.each(['127.0.0.1', '127.1.2.3', 'localhost', '::1'])('%s is none', (host) => {
    expect(mistakes({ PULLGATE_HOST: host })).toEqual([])
  })
  test('PULLGATE_AUTH knows no other value', () => {
    for (const value of ['on', 'OFF', 'false', '0']) {
      expect(mistakes({ PULLGATE_HOST: '0.0.0.0', PULLGATE_AUTH: value })).not.toEqual([])
    }
  })
})
