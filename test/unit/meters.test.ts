import { Counter, Histogram, Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { createCounter, createHistogram } from '../../src/telemetry/meters.ts'

// What a scrape shows is what prom-client's own counters and histograms would have shown.

const buckets = [0.001, 0.5, 1, 2.5]
const samples = [0, 0.001, 0.0010001, 0.5, 0.7, 1, 1e-9, 2.5, 2.6, 1e9, 0.1, 0.2]

function world() {
  const [ours, theirs] = [new Registry(), new Registry()]
  const same = async () => {
    const text = await ours.metrics()
    expect(text).toBe(await theirs.metrics())
    return text
  }
  return { ours, theirs, registers: [theirs], same }
}

describe('a counter', () => {
  test.each([[[]], [['a']], [['a', 'b', 'c']]] as const)('with the labels %j', async (names) => {
    const { ours, theirs, same, registers } = world()
    const labelNames: string[] = [...names]
    const help = 'What\nit "says"'
    const our = createCounter(ours, { name: 'x_total', help, labelNames })
    const their = new Counter({ name: 'x_total', help, labelNames, registers })
    const empty = await same()
    expect(empty.includes('x_total 0')).toBe(names.length === 0)
    for (let n = 0; n < 30; n += 1) {
      const labels = Object.fromEntries(labelNames.map((name, index) => [name, `"v\\${(n >> index) % 3}`]))
      our.inc(labels, n)
      their.inc(labels, n)
      our.inc(labels)
      their.inc(labels)
    }
    expect((await same()).split('\n').length).toBeGreaterThan(3)
    expect(theirs.getMetricsAsArray().length).toBe(1)
  })

  test('that was raised by 0 is shown', async () => {
    const { ours } = world()
    createCounter(ours, { name: 'x', help: 'x', labelNames: ['a'] }).inc({ a: 'b' }, 0)
    expect(await ours.metrics()).toContain('x{a="b"} 0')
  })

  test('keeps label values apart, whatever the caller does with the object afterwards', async () => {
    const { ours } = world()
    const counter = createCounter(ours, { name: 'x', help: 'x', labelNames: ['a', 'b'] })
    const labels = { a: '1', b: '23' }
    counter.inc(labels)
    Object.assign(labels, { a: '12', b: '3' })
    counter.inc(labels, 5)
    const text = await ours.metrics()
    expect(text).toContain('x{a="1",b="23"} 1')
    expect(text).toContain('x{a="12",b="3"} 5')
  })
})

describe('a histogram', () => {
  test.each([[[]], [['a']], [['a', 'b']]] as const)('with the labels %j', async (names) => {
    const { ours, same, registers } = world()
    const labelNames: string[] = [...names]
    const our = createHistogram(ours, { name: 'x_seconds', help: 'x', labelNames }, buckets)
    const their = new Histogram({ name: 'x_seconds', help: 'x', labelNames, buckets, registers })
    await same()
    for (const [n, sample] of samples.entries()) {
      const labels = Object.fromEntries(labelNames.map((name, index) => [name, `v${(n >> index) % 2}`]))
      our.observe(labels, sample)
      their.observe(labels, sample)
    }
    expect(await same()).toContain('le="+Inf"')
  })
})

test('a name is taken once', () => {
  const { ours } = world()
  const description = { name: 'x', help: 'x', labelNames: [] }
  createCounter(ours, description)
  expect(() => createHistogram(ours, description, buckets)).toThrow('already been registered')
})
