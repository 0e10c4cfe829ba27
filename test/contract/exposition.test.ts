import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { createMetrics } from '../../src/telemetry/metrics.ts'

// What a scrape reads, as `promtool check metrics` judges it; by the same rules where promtool is not installed.

const { registry } = createMetrics({
  ...{ version: '1.2.3', revision: 1, parked: () => 2, parkedMax: 15_000, draining: () => false },
  ...{ listenerConnected: () => true, longTransactions: () => 1 },
  problems: () => [],
  topics: () => ({ armed: 3, unfenced: 1, polled: 1 }),
  pool: () => ({ total: 3, idle: 1, waiting: 0, max: 10 }),
  queue: () => ({
    jobs: [{ topic: 'jobs_a', state: 'ready', jobs: 1 }],
    ...{ oldestReady: [{ topic: 'jobs_a', seconds: 1.5 }], ageSeconds: 4, durationSeconds: 0.01 },
  }),
})
const text = await registry.metrics()
const metrics = [...text.matchAll(/^# HELP (\S+) ?(.*)\n# TYPE (\S+) (\w+)$/gm)].map(
  ([, name = '', help = '', typed = '', type = '']) => ({ name, help, typed, type }),
)
const names = (pick: (metric: (typeof metrics)[number]) => boolean) =>
  metrics.filter(pick).map(({ name }) => name)

test('every metric has a help text and a type, and there is something to judge', () => {
  expect(metrics.length).toBe(text.match(/^# TYPE /gm)?.length)
  expect(metrics.length).toBeGreaterThan(50)
  expect(names(({ name, typed, help }) => name !== typed || help === '')).toEqual([])
})

test('counters and nothing else end in _total', () => {
  expect(names(({ name, type }) => name.endsWith('_total') !== (type === 'counter'))).toEqual([])
})

test('no name has the ending of a histogram, its own type, a capital letter or a unit that is no base unit', () => {
  expect(names(({ name }) => /_(sum|count|bucket)$/.test(name))).toEqual([])
  expect(names(({ name }) => /(^|_)(gauge|counter|histogram|summary)(_|$)/.test(name))).toEqual([])
  expect(names(({ name }) => !/^[a-z][a-z0-9_]*$/.test(name))).toEqual([])
  const unit = /_(ms|milliseconds|us|ns|minutes|hours|days|kb|mb|kilobytes|megabytes|percent)(_|$)/
  expect(names(({ name }) => unit.test(name))).toEqual([])
})

test('database errors have their series before the first of them', () => {
  const series = [...text.matchAll(/^pullgate_db_errors_total\{class="(\w+)"\} 0$/gm)].map(([, name]) => name)
  expect(series).toEqual(['08', '25', '40', '53', '55', '57', '58', 'XX', 'other'])
})

test('promtool has no complaint', ({ skip }) => {
  const { error, status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: text,
    encoding: 'utf8',
  })
  if (error !== undefined) {
    console.log(`promtool was not asked (${error.message}): the rules above stand in for it`)
    skip('promtool is not installed')
  }
  expect(`${stdout}${stderr}`).toBe('')
  expect(status).toBe(0)
})
