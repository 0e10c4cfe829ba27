import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

// What Grafana would accept and readers would stumble over.

const grafana = new URL('../../grafana/', import.meta.url)

type Target = { readonly refId?: string; readonly expr?: string; readonly datasource?: unknown }
type Panel = {
  readonly id: number
  readonly type: string
  readonly title?: string
  readonly description?: string
  readonly datasource?: unknown
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } }
  readonly options?: { readonly yAxis?: { readonly unit?: string } }
  readonly targets?: readonly Target[]
  readonly panels?: readonly Panel[]
}
type Variable = {
  readonly name: string
  readonly type: string
  readonly query: string | { readonly query: string }
  readonly datasource?: unknown
  readonly multi?: boolean
  readonly includeAll?: boolean
  readonly allValue?: string
}
type Dashboard = {
  readonly uid: string
  readonly title: string
  readonly schemaVersion: number
  readonly editable: boolean
  readonly tags: readonly string[]
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly Variable[] }
  readonly annotations: { readonly list: readonly { readonly datasource: unknown; readonly expr?: string }[] }
}

const files = readdirSync(new URL('dashboards/', grafana)).filter((name) => name.endsWith('.json'))
const dashboards = files.map((file) => {
  const dashboard = JSON.parse(readFileSync(new URL(`dashboards/${file}`, grafana), 'utf8')) as Dashboard
  return { file, dashboard }
})
const anyDatasource = { type: 'prometheus', uid: '${datasource}' }
// Metrics with a topic label: the topic variable has to choose among them.
const byTopic =
  /^pullgate_(claimed_jobs_total|jobs_ended_total|publish_to_claim_seconds\w*|queue_jobs|queue_oldest_ready_age_seconds)$/

/** The selectors of an expression: metric and what stands in its braces. */
function selectors(expression: string): { metric: string; matchers: string }[] {
  return [...expression.matchAll(/\b(pullgate_\w+)(?:\{([^}]*)\})?/g)].map(
    ([, metric = '', matchers = '']) => ({
      metric,
      matchers,
    }),
  )
}

test('uids and titles are unique, and one dashboard opens first', () => {
  expect(files).toContain('pullgate-overview.json')
  for (const key of ['uid', 'title'] as const) {
    const values = dashboards.map(({ dashboard }) => dashboard[key])
    expect(new Set(values).size).toBe(values.length)
  }
})

describe.each(dashboards)('$file', ({ file, dashboard }) => {
  const panels = dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])])
  const charts = panels.filter((panel) => panel.type !== 'row')
  const expressions = [
    ...charts.flatMap(({ title = '', targets = [] }) => targets.map(({ expr = '' }) => ({ title, expr }))),
    ...dashboard.annotations.list.map(({ expr = '' }) => ({ title: 'annotation', expr })),
  ]

  test('is classic JSON with a stable uid, not to be edited in the browser', () => {
    expect(dashboard.uid).toBe(file.replace('.json', ''))
    expect(dashboard.schemaVersion).toBeGreaterThanOrEqual(39)
    expect(dashboard.schemaVersion).toBeLessThanOrEqual(41)
    expect(dashboard).not.toHaveProperty('id')
    expect(dashboard.editable).toBe(false)
    expect(dashboard.tags).toContain('pullgate')
  })

  test('has its variables', () => {
    const variables = new Map(dashboard.templating.list.map((variable) => [variable.name, variable]))
    expect(variables.get('datasource')).toMatchObject({ type: 'datasource', query: 'prometheus' })
    for (const name of ['job', 'instance', 'topic']) {
      expect(variables.get(name)).toMatchObject({
        type: 'query',
        datasource: anyDatasource,
        multi: true,
        includeAll: true,
        allValue: '.+',
      })
    }
  })

  test('panels have a title, a description and a unit', () => {
    for (const panel of charts) {
      expect(panel.title, `panel ${panel.id}`).toMatch(/\S/)
      expect(panel.description ?? '', panel.title).toMatch(/\.$/)
      expect(panel.fieldConfig?.defaults.unit ?? '', panel.title).toMatch(/\S/)
      if (panel.type === 'heatmap') expect(panel.options?.yAxis?.unit ?? '', panel.title).toMatch(/\S/)
      expect(['timeseries', 'stat', 'heatmap', 'table']).toContain(panel.type)
    }
  })

  test('panels have ids of their own and do not overlap', () => {
    expect(new Set(panels.map((panel) => panel.id)).size).toBe(panels.length)
    const taken = new Map<string, string>()
    for (const { gridPos, title = '' } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x},${y}`), `${title} overlaps`).toBeUndefined()
          taken.set(`${x},${y}`, title)
        }
      }
    }
  })

  test('no data source is hard-coded', () => {
    for (const panel of charts) {
      expect(panel.datasource, panel.title).toEqual(anyDatasource)
      for (const target of panel.targets ?? []) expect(target.datasource, panel.title).toEqual(anyDatasource)
    }
    for (const annotation of dashboard.annotations.list) expect(annotation.datasource).toEqual(anyDatasource)
  })

  test('every panel asks for something, once', () => {
    for (const panel of charts) {
      const targets = panel.targets ?? []
      expect(targets.length, panel.title).toBeGreaterThan(0)
      expect(new Set(targets.map((target) => target.refId)).size, panel.title).toBe(targets.length)
      for (const target of targets) expect(target.expr ?? '', panel.title).toMatch(/pullgate_/)
    }
  })

  test('every selector follows the variables', () => {
    for (const { title, expr } of expressions) {
      for (const { metric, matchers } of selectors(expr)) {
        expect(matchers, `${title}: ${metric}`).toContain('job=~"$job"')
        expect(matchers, `${title}: ${metric}`).toContain('instance=~"$instance"')
        if (byTopic.test(metric)) expect(matchers, `${title}: ${metric}`).toContain('topic=~"$topic"')
      }
    }
  })

  test('rates span $__rate_interval', () => {
    for (const { title, expr } of expressions) {
      for (const [range] of expr.matchAll(/\[[^\]]*\]/g)) expect(range, title).toBe('[$__rate_interval]')
      for (const { metric } of selectors(expr)) {
        if (!/_(total|bucket|sum|count)$/.test(metric)) continue
        const use = expr.split(metric).slice(0, -1)
        for (const before of use) expect(before, `${title}: ${metric}`).toMatch(/(rate|increase)\($/)
      }
    }
  })

  test('quantiles keep the buckets, and gauges of the database are taken once', () => {
    for (const { title, expr } of expressions) {
      if (expr.includes('_bucket')) expect(expr, title).toMatch(/sum by \(le/)
      for (const before of expr.split(/pullgate_queue_\w+/).slice(0, -1)) {
        expect(before, title).toMatch(/max( without \(instance, pod\) )?\($/)
      }
    }
  })
})

test('the provisioned data source scrapes as often as Prometheus does', () => {
  const datasource = readFileSync(new URL('provisioning/datasources/prometheus.yaml', grafana), 'utf8')
  const prometheus = readFileSync(new URL('prometheus/prometheus.yml', grafana), 'utf8')
  const interval = /^ {2}scrape_interval: (\d+s)$/m.exec(prometheus)?.[1]
  expect(interval).toBeDefined()
  expect(datasource).toContain(`timeInterval: ${interval ?? ''}`)
})
