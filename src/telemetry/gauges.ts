import { collectDefaultMetrics, Gauge } from 'prom-client'
import type { Registry } from 'prom-client'
import { problemKinds } from '../domain/types.ts'
import type { Problem } from '../domain/types.ts'

/** What a scrape reads that is state rather than an event. Nothing here may ask the database. */
export type MetricSources = {
  readonly version: string
  readonly revision: number
  readonly parked: () => number
  readonly parkedMax: number
  readonly draining: () => boolean
  readonly listenerConnected: () => boolean
  /** Topics that publishers notify this gateway of (some of them not fenced yet), and busy ones that it polls instead. */
  readonly topics: () => { readonly armed: number; readonly unfenced: number; readonly polled: number }
  readonly longTransactions: () => number
  readonly pool: () => { total: number; idle: number; waiting: number; max: number }
  readonly problems: () => readonly Problem[]
  readonly queue: () => QueueGauges
}

/** The cached counts; `ageSeconds` says how old they are now. */
export type QueueGauges = {
  readonly jobs: readonly { topic: string; state: string; jobs: number }[]
  readonly oldestReady: readonly { topic: string; seconds: number }[]
  readonly ageSeconds: number
  readonly durationSeconds: number
}

/** Of prom-client's own, but for three gauges that are named as counters: sums of others that are there. */
export function collectDefaults(registry: Registry): void {
  collectDefaultMetrics({ register: registry, prefix: 'pullgate_' })
  for (const what of ['handles', 'requests', 'resources'])
    registry.removeSingleMetric(`pullgate_nodejs_active_${what}_total`)
}

/** `topicLabel`: the label that stands for a topic. */
export function addGauges(
  registry: Registry,
  sources: MetricSources,
  topicLabel: (topic: string) => string,
): void {
  const registers = [registry]
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `pullgate_${name}`,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })

  gauge('pulls_parked', 'Pulls parked on this gateway', sources.parked)
  gauge('pulls_parked_limit', 'Pulls that this gateway may park', () => sources.parkedMax)
  gauge('draining', '1 while the gateway shuts down', () => Number(sources.draining()))
  gauge('listener_connected', '1 while the gateway hears notifications', () =>
    Number(sources.listenerConnected()),
  )
  new Gauge({
    name: 'pullgate_watched_topics',
    help: 'Topics with parked pulls: notified of when armed, looked at while unfenced, polled when busy',
    labelNames: ['mode'],
    registers,
    collect() {
      const { armed, unfenced, polled } = sources.topics()
      this.set({ mode: 'armed' }, armed - unfenced)
      this.set({ mode: 'unfenced' }, unfenced)
      this.set({ mode: 'polled' }, polled)
    },
  })
  gauge('long_transactions', 'Transactions open for over a second that claims do not wait for', () =>
    sources.longTransactions(),
  )
  gauge('db_pool_max', 'Connections the pool may open', () => sources.pool().max)
  gauge('db_pool_waiting', 'Statements that wait for a connection', () => sources.pool().waiting)
  new Gauge({
    name: 'pullgate_db_pool_connections',
    help: 'Connections of the pool by state',
    labelNames: ['state'],
    registers,
    collect() {
      const { total, idle } = sources.pool()
      this.set({ state: 'idle' }, idle)
      this.set({ state: 'active' }, total - idle)
    },
  })
  new Gauge({
    name: 'pullgate_problems',
    help: 'Things that a person should look at, by kind; the same on every gateway',
    labelNames: ['problem'],
    registers,
    collect() {
      const found = new Map(sources.problems().map(({ problem, things }) => [problem, things]))
      for (const problem of problemKinds) this.set({ problem }, found.get(problem) ?? 0)
    },
  })
  gauge('queue_snapshot_age_seconds', 'Age of the queue counts', () => sources.queue().ageSeconds)
  gauge('queue_snapshot_duration_seconds', 'Time it took to count', () => sources.queue().durationSeconds)
  new Gauge({
    name: 'pullgate_queue_jobs',
    help: 'Live jobs by topic and state, from the last count; the same on every gateway',
    labelNames: ['topic', 'state'],
    registers,
    collect() {
      this.reset()
      for (const { topic, state, jobs } of sources.queue().jobs)
        this.inc({ topic: topicLabel(topic), state }, jobs)
    },
  })
  new Gauge({
    name: 'pullgate_queue_oldest_ready_age_seconds',
    help: 'How long the oldest ready job has waited; absent when none is ready; the same on every gateway',
    labelNames: ['topic'],
    registers,
    collect() {
      this.reset()
      const oldest = new Map<string, number>()
      for (const { topic, seconds } of sources.queue().oldestReady) {
        const label = topicLabel(topic)
        oldest.set(label, Math.max(seconds, oldest.get(label) ?? 0))
      }
      for (const [topic, seconds] of oldest) this.set({ topic }, seconds)
    },
  })
  new Gauge({
    name: 'pullgate_build_info',
    help: 'Always 1',
    labelNames: ['version', 'schema_revision'],
    registers,
  }).set({ version: sources.version, schema_revision: String(sources.revision) }, 1)
}
