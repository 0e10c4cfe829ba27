import { describe, expect, test } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { proxyNames, snippetsOf } from '../support/proxies.ts'
import type { ProxyName } from '../support/proxies.ts'

// docs/proxies.md against the defaults of the gateway: what only long waits would show.

const {
  PULLGATE_MAX_WAIT_SECONDS,
  PULLGATE_STATEMENT_TIMEOUT_MS,
  PULLGATE_KEEP_ALIVE_SECONDS,
  PULLGATE_BODY_MAX_BYTES,
} = readConfig({})

/** Where a proxy's time-outs are in its snippets; undefined where it has none that could come too early. */
const settings: Readonly<Record<ProxyName, { answer?: RegExp; idle?: RegExp; bodyMiB?: RegExp }>> = {
  HAProxy: { answer: /^ *timeout (?:client|server) (\d+)s$/gm, idle: /^ *timeout http-keep-alive (\d+)s$/gm },
  nginx: {
    answer: /proxy_read_timeout (\d+)s;/g,
    idle: /keepalive_timeout (\d+)s;/g,
    bodyMiB: /client_max_body_size (\d+)m;/g,
  },
  Envoy: { answer: /route: \{.* timeout: (\d+)s \}/g, idle: /idle_timeout: (\d+)s/g },
  Caddy: { idle: /keepalive (\d+)s/g },
  Traefik: { idle: /idleConnTimeout: (\d+)s/g },
}

describe.each(proxyNames)('the snippets of %s', (name) => {
  const text = snippetsOf(name).join('\n')
  const numbers = (pattern: RegExp) => [...text.matchAll(pattern)].map(([, number]) => Number(number))
  const { answer, idle, bodyMiB } = settings[name]

  test('wait longer than any pull', () => {
    expect(text).toContain('8080')
    if (answer === undefined) return
    const waits = numbers(answer)
    expect(waits).not.toEqual([])
    const longest = PULLGATE_MAX_WAIT_SECONDS + PULLGATE_STATEMENT_TIMEOUT_MS / 1000
    expect(Math.min(...waits)).toBeGreaterThan(longest)
  })
  test('close idle connections before the gateway does', () => {
    if (idle === undefined) return
    const idles = numbers(idle)
    expect(idles).not.toEqual([])
    expect(Math.max(...idles)).toBeLessThan(PULLGATE_KEEP_ALIVE_SECONDS)
  })
  test('let bodies through that the gateway refuses', () => {
    if (bodyMiB === undefined) return
    const sizes = numbers(bodyMiB)
    expect(sizes).not.toEqual([])
    expect(Math.min(...sizes) * 1024 ** 2).toBeGreaterThan(PULLGATE_BODY_MAX_BYTES)
  })
})
