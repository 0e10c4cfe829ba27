import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ConfigError, configKeys, readConfig } from '../../src/config.ts'
import { logLevels } from '../../src/telemetry/logger.ts'

// docs/configuration.md and src/config.ts say the same.

const page = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8')

/** `| key | default | range | meaning |` */
const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| ([^|]*) \| ([^|]*) \| ([^|]+) \|$/gm)].map(
  ([, key = '', fallback = '', range = '', meaning = '']) => ({
    key,
    fallback: fallback.trim(),
    range: range.trim(),
    meaning,
  }),
)
const defaults: Record<string, string | number | undefined> = readConfig({})

function accepts(key: string, value: string): boolean {
  try {
    readConfig({ [key]: value })
    return true
  } catch (error) {
    if (error instanceof ConfigError) return false
    throw error
  }
}

test('every key is documented once, in order, and nothing else is', () => {
  expect(rows.map(({ key }) => key)).toEqual(configKeys)
  const mentioned = new Set(page.match(/\b(?:PULLGATE_[A-Z_]+|DATABASE_URL)\b/g) ?? [])
  expect([...mentioned].filter((key) => !configKeys.includes(key))).toEqual([])
})

describe.each(rows)('$key', ({ key, fallback, range, meaning }) => {
  test('has its default', () => {
    const value = defaults[key]
    expect(fallback).toBe(value === undefined ? 'none' : `\`${value}\``)
  })

  test('has its range', () => {
    const [, min, max] = /^([\d,]+) to ([\d,]+)$/.exec(range.replaceAll(',', '')) ?? []
    const isNumber = !accepts(key, 'x') && ['100', '10000'].some((value) => accepts(key, value))
    expect(min !== undefined, 'a number has a range').toBe(isNumber)
    if (min === undefined || max === undefined) return
    expect([min, max].map((value) => accepts(key, value))).toEqual([true, true])
    expect([String(Number(min) - 1), String(Number(max) + 1)].map((value) => accepts(key, value))).toEqual([
      false,
      false,
    ])
  })

  test('has its values, where there are few', () => {
    const values = [...range.matchAll(/`([^`]+)`/g)].map(([, value]) => value)
    const known = { PULLGATE_LOG_LEVEL: [...logLevels], PULLGATE_AUTH: ['off'] }[key]
    if (known !== undefined) expect(values).toEqual(known)
  })

  test('has a meaning', () => {
    expect(meaning.length).toBeGreaterThan(20)
  })
})
