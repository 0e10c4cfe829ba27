import type { Counter, Histogram, Registry } from 'prom-client'

/**
 * Counters and histograms for a registry of prom-client, which shows them. Its own validate, sort and hash the labels
 * of every call: with about nine calls per job that was a fifth of the time of a pull (docs/adr/0001-hot-route.md).
 */

export type Labels<L extends string> = Readonly<Record<L, string>>

type Sample = {
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
  readonly metricName?: string
}

export type Description<L extends string> = {
  readonly name: string
  readonly help: string
  readonly labelNames: readonly L[]
}

export type CounterMeter<L extends string> = {
  inc(labels: Labels<L>, by?: number): void
}

export type HistogramMeter<L extends string> = {
  observe(labels: Labels<L>, value: number): void
}

export function createCounter<L extends string>(
  registry: Registry,
  description: Description<L>,
): CounterMeter<L> {
  const cells = createCells(description.labelNames, () => ({ value: 0 }))
  register(registry, description, 'counter', () =>
    cells.all().map(({ labels, cell }) => ({ labels, value: cell.value })),
  )
  return {
    inc(labels, by = 1) {
      cells.of(labels).value += by
    },
  }
}

/** `buckets` are upper bounds, ascending; what is above the last is in +Inf only. */
export function createHistogram<L extends string>(
  registry: Registry,
  description: Description<L>,
  buckets: readonly number[],
): HistogramMeter<L> {
  const { name } = description
  const cells = createCells(description.labelNames, () => ({
    inBucket: [...buckets, Infinity].map(() => 0),
    sum: 0,
  }))
  register(registry, description, 'histogram', () =>
    cells.all().flatMap(({ labels, cell }): Sample[] => {
      let count = 0
      const upTo = [...buckets, '+Inf'].map((le, index) => {
        count += cell.inBucket[index] ?? 0
        return { metricName: `${name}_bucket`, labels: { le, ...labels }, value: count }
      })
      return [
        ...upTo,
        { metricName: `${name}_sum`, labels, value: cell.sum },
        { metricName: `${name}_count`, labels, value: count },
      ]
    }),
  )
  return {
    observe(labels, value) {
      const cell = cells.of(labels)
      let index = 0
      while (index < buckets.length && value > (buckets[index] ?? Infinity)) index += 1
      cell.inBucket[index] = (cell.inBucket[index] ?? 0) + 1
      cell.sum += value
    },
  }
}

/** One cell per set of label values. Without labels there is one from the start: it shows 0. */
function createCells<L extends string, Cell>(names: readonly L[], make: () => Cell) {
  const cells = new Map<string, { readonly labels: Labels<L>; readonly cell: Cell }>()

  function of(labels: Labels<L>): Cell {
    let key = ''
    for (const name of names) key += key === '' ? labels[name] : `\n${labels[name]}`
    let entry = cells.get(key)
    if (entry === undefined) {
      entry = { labels: { ...labels }, cell: make() }
      cells.set(key, entry)
    }
    return entry.cell
  }

  if (names.length === 0) of({} as Labels<L>)
  return { of, all: () => [...cells.values()] }
}

/** Of a metric the registry asks for its name and, at a scrape, for `get`. */
function register(
  registry: Registry,
  { name, help, labelNames }: Description<string>,
  type: 'counter' | 'histogram',
  read: () => Sample[],
): void {
  const metric = {
    ...{ name, help, type, labelNames },
    get: () => Promise.resolve({ name, help, type, values: read(), aggregator: 'sum' }),
  }
  registry.registerMetric(metric as unknown as Counter | Histogram)
}
