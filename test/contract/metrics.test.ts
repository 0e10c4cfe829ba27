import { readFileSync } from 'node:fs'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { expect, test } from 'vitest'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { finalStates } from '../../src/domain/job-states.ts'
import { listenerLossCauses, pullOutcomes, returnReasons, wakeCauses } from '../../src/domain/types.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import type { Metrics } from '../../src/telemetry/metrics.ts'

// The code, docs/metrics.md and the dashboard name the same metrics.

const root = new URL('../../', import.meta.url)
const read = (path: string) => readFileSync(new URL(path, root), 'utf8')

type Metric = { readonly type: string; readonly labels: readonly string[] }

const topics = ['jobs_a', 'jobs_b']
const liveStates = ['ready', 'scheduled', 'offered', 'running', 'delivered', 'orphaned']

function createRegistry(): Metrics {
  return createMetrics({
    version: '1.2.3',
    revision: 1,
    parked: () => 2,
    parkedMax: 15_000,
    draining: () => false,
    listenerConnected: () => true,
    topics: () => ({ armed: 3, unfenced: 1, polled: 1 }),
    longTransactions: () => 1,
    pool: () => ({ total: 3, idle: 1, waiting: 0, max: 10 }),
    problems: () => [{ problem: 'jobs-set-aside', things: 2, detail: 'job 1' }],
    queue: () => ({
      jobs: topics.flatMap((topic) => liveStates.map((state) => ({ topic, state, jobs: 1 }))),
      oldestReady: topics.map((topic) => ({ topic, seconds: 1.5 })),
      ageSeconds: 4,
      durationSeconds: 0.01,
    }),
  })
}

/** Of every event that counts something, at least one with each value of its closed fields. */
function sampleEvents(): GatewayEvent[] {
  const error = new Error('sample')
  const statuses = ['ok', 'lost', 'unknown'] as const
  return [
    ...wakeCauses.flatMap((cause): GatewayEvent[] => [
      { type: 'wake', cause },
      { type: 'claim', cause, topic: 'jobs_a', jobs: 1, seconds: 0.01 },
      { type: 'claim', cause, topic: 'jobs_a', jobs: 0, seconds: 0.01 },
    ]),
    { type: 'claim failed', topic: 'jobs_a', seconds: 1, error },
    { type: 'job claimed', topic: 'jobs_a', readySeconds: 0.01 },
    ...pullOutcomes.map((outcome): GatewayEvent => ({
      type: 'pull ended',
      outcome,
      waitSeconds: 1,
      jobs: 0,
      subscription: 's',
    })),
    ...(['auto', 'explicit'] as const).map((ack): GatewayEvent => ({
      type: 'proxied pull',
      ack,
      first: true,
    })),
    { type: 'response written', wakeSeconds: 0.01 },
    ...(['confirmed', 'undelivered', 'in doubt'] as const).map((outcome): GatewayEvent => ({
      type: 'delivery',
      outcome,
      jobs: 1,
    })),
    { type: 'delivery report failed', dropped: 1, error },
    ...returnReasons.map((reason): GatewayEvent => ({ type: 'jobs returned', reason, jobs: 1 })),
    ...statuses.flatMap((status): GatewayEvent[] => [
      ...(['complete', 'fail', 'release'] as const).map((verb): GatewayEvent => ({
        type: 'settle',
        verb,
        status,
      })),
      { type: 'heartbeat', status },
    ]),
    ...finalStates.map((state): GatewayEvent => ({ type: 'jobs ended', topic: 'jobs_a', state, jobs: 1 })),
    { type: 'published', jobs: 1 },
    {
      ...{ type: 'due', promoted: 1, expired: 1, offersEnded: { ready: 1, failed: 1 } },
      leasesLost: { ready: 1, orphaned: 1, failed: 1, cancelled: 1 },
    },
    ...(['woke', 'idle', 'invalid'] as const).map((result): GatewayEvent => ({
      type: 'notification',
      result,
    })),
    ...listenerLossCauses.map((cause): GatewayEvent => ({
      type: 'listener lost',
      cause,
      reason: 'sample',
    })),
    { type: 'listener heartbeat', seconds: 0.01 },
    { type: 'database error', sqlState: '57P01', error },
    { type: 'upkeep failed', task: 'backstop', error },
    ...[true, false].map((held): GatewayEvent => ({
      ...{ type: 'request', route: '/jobs/{id}', method: 'GET', status: 200, seconds: 0.01 },
      ...{ held, id: 'r' },
    })),
  ]
}

/** What prom-client adds by itself. */
function defaultNames(): Set<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, prefix: 'pullgate_' })
  return new Set(registry.getMetricsAsArray().map((metric) => metric.name))
}

async function metricsInCode(registry: Registry): Promise<Map<string, Metric>> {
  const labels = new Map(
    registry
      .getMetricsAsArray()
      .map((metric) => [metric.name, (metric as unknown as { labelNames: string[] }).labelNames]),
  )
  const metrics = await registry.getMetricsAsJSON()
  return new Map(
    metrics.map(({ name, type }) => [
      name,
      { type: String(type), labels: [...(labels.get(name) ?? [])].sort() },
    ]),
  )
}

type Documented = Metric & { readonly values: ReadonlyMap<string, ReadonlySet<string>> }

/** Rows like: | `pullgate_x_total` | counter | `topic`, `cause` (a, b) | … */
function metricsInDocs(): Map<string, Documented> {
  const found = new Map<string, Documented>()
  for (const [, name = '', type = '', labelCell = ''] of read('docs/metrics.md').matchAll(
    /^\| `(pullgate_\w+)` \| (\w+) \| ([^|]*)\|/gm,
  )) {
    expect(found.has(name), `${name} is documented twice`).toBe(false)
    const labels = [...labelCell.matchAll(/`(\w+)`(?: \(([^)]+)\))?/g)]
    const lists = labels.flatMap(([, label = '', list]) =>
      list === undefined ? [] : [[label, new Set(list.split(', '))] as const],
    )
    found.set(name, { type, labels: labels.map(([, label = '']) => label).sort(), values: new Map(lists) })
  }
  return found
}

/** Names of the metrics in the expressions of a dashboard, without the suffixes of histograms. */
function metricsInDashboard(known: ReadonlyMap<string, Metric>): Set<string> {
  const dashboard = JSON.parse(read('grafana/dashboards/pullgate-overview.json')) as {
    panels: { targets?: { expr: string }[] }[]
    annotations: { list: { expr?: string }[] }
  }
  const expressions = [
    ...dashboard.panels.flatMap((panel) => (panel.targets ?? []).map((target) => target.expr)),
    ...dashboard.annotations.list.map((annotation) => annotation.expr ?? ''),
  ]
  const names = expressions.flatMap((expression) => expression.match(/\bpullgate_\w+/g) ?? [])
  return new Set(
    names.map((name) => {
      const base = name.replace(/_(bucket|sum|count)$/, '')
      return known.get(base)?.type === 'histogram' ? base : name
    }),
  )
}

const metrics = createRegistry()
const code = await metricsInCode(metrics.registry)
const defaults = defaultNames()
const ours = [...code.keys()].filter((name) => !defaults.has(name))
const docs = metricsInDocs()
const shown = metricsInDashboard(code)

const pick = <V>(from: ReadonlyMap<string, V>, names: Iterable<string>) =>
  Object.fromEntries([...names].map((name) => [name, from.get(name)]))

test('there is something to compare', () => {
  expect(ours.length).toBeGreaterThan(30)
  expect(defaults.size).toBeGreaterThan(10)
  expect(shown.size).toBeGreaterThan(30)
})

test('every metric of ours is documented, with its type and labels', () => {
  const documented = new Map([...docs].map(([name, { type, labels }]) => [name, { type, labels }]))
  expect(pick(documented, ours)).toEqual(pick(code, ours))
})

test('every documented metric exists, prom-client’s included', () => {
  const types = (of: ReadonlyMap<string, Metric>) =>
    pick(new Map([...of].map(([name, { type }]) => [name, type])), docs.keys())
  expect(types(docs)).toEqual(types(code))
})

test('every metric of ours is on the dashboard', () => {
  expect(ours.filter((name) => !shown.has(name))).toEqual([])
})

test('every metric on the dashboard exists and is documented', () => {
  expect([...shown].filter((name) => !code.has(name) || !docs.has(name))).toEqual([])
})

test('a label has a list of values or a line among the open labels', () => {
  const section = read('docs/metrics.md').split('## Open labels')[1] ?? ''
  const open = new Set(
    [...section.matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell = '']) => cell.match(/\w+/g) ?? []),
  )
  const used = new Set<string>()
  for (const [name, { labels, values }] of docs) {
    for (const label of labels.filter((label) => !values.has(label))) {
      expect([...open], name).toContain(label)
      used.add(label)
    }
  }
  expect(open).toEqual(used)
})

test('the documented label values are those that occur', async () => {
  for (const event of sampleEvents()) metrics.observe(event)
  const exported = await metrics.registry.getMetricsAsJSON()
  for (const [name, { values }] of docs) {
    const series = (exported.find((metric) => metric.name === name)?.values ?? []) as {
      labels: Record<string, string | number | undefined>
    }[]
    for (const [label, allowed] of values) {
      const occurring = new Set(series.map(({ labels }) => String(labels[label])))
      expect({ name, label, values: [...occurring].sort() }).toEqual({
        name,
        label,
        values: [...allowed].sort(),
      })
    }
  }
})

test('names follow the conventions of Prometheus', () => {
  for (const name of ours) {
    const { type } = code.get(name) ?? {}
    expect(name).toMatch(/^pullgate_[a-z][a-z_]*$/)
    expect([name, name.endsWith('_total')]).toEqual([name, type === 'counter'])
    if (type === 'histogram') expect(name).toMatch(/_seconds$/)
  }
})
