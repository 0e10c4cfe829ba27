import { Registry } from 'prom-client'
import type { GatewayEvent } from '../domain/events.ts'
import { finalStates } from '../domain/job-states.ts'
import { listenerLossCauses, pullOutcomes, returnReasons, wakeCauses } from '../domain/types.ts'
import { addGauges, collectDefaults } from './gauges.ts'
import type { MetricSources } from './gauges.ts'
import { createCounter, createHistogram } from './meters.ts'

export type Metrics = {
  readonly registry: Registry
  observe(event: GatewayEvent): void
}

/** A topic beyond the first so many shares the label `_other`: each costs over 20 series. */
const topicLabelsMax = 100

// Up to the wait of a pull; 0.25 s is the objective of a wake.
const wakeBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]
const delayBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300]
const waitBuckets = [0.01, 0.1, 0.5, 1, 5, 10, 20, 25, 30, 55, 60]

/** Classes of SQLSTATEs that are reported when something outside breaks; `XX`: a bug of Postgres. */
const errorClasses = ['08', '25', '40', '53', '55', '57', '58', 'XX', 'other']

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry()
  collectDefaults(registry)

  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    createCounter(registry, { name: `pullgate_${name}`, help, labelNames })
  const histogram = <L extends string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly L[] = [],
  ) => createHistogram(registry, { name: `pullgate_${name}`, help, labelNames }, buckets)

  const jobsEnded = counter('jobs_ended_total', 'Jobs that this gateway ended, by topic and final state', [
    ...['topic' as const, 'state' as const],
  ])
  const topicLabels = new Set<string>()
  const topicLabel = (topic: string): string => {
    if (topicLabels.has(topic)) return topic
    if (topicLabels.size >= topicLabelsMax) return '_other'
    topicLabels.add(topic)
    for (const state of finalStates) jobsEnded.inc({ topic, state }, 0)
    return topic
  }

  const wakes = counter('wakes_total', 'Hints that a topic may have work, by cause', ['cause'])
  const claims = counter('claims_total', 'Claim statements, by the cause of the claim', ['cause', 'result'])
  const claimSeconds = histogram('claim_duration_seconds', 'Time of a claim statement', wakeBuckets, [
    'result',
  ])
  const claimedJobs = counter('claimed_jobs_total', 'Jobs claimed, by topic and cause', ['topic', 'cause'])
  const publishToClaim = histogram(
    'publish_to_claim_seconds',
    'From the instant a job could be claimed to its claim, by the clock of the database',
    delayBuckets,
    ['topic'],
  )
  const wakeToResponse = histogram(
    'wake_to_response_seconds',
    'From the hint to the response in the hands of the operating system',
    wakeBuckets,
  )
  const pulls = counter('pulls_total', 'Pulls ended, by outcome', ['outcome'])
  const pullWait = histogram('pull_wait_seconds', 'How long pulls were held, by outcome', waitBuckets, [
    'outcome',
  ])
  const proxiedPulls = counter('proxied_pulls_total', 'Pulls that were given jobs through a proxy', ['ack'])
  const deliveries = counter('deliveries_total', 'Claimed jobs by what became of their hand-over', [
    'outcome',
  ])
  const reportsDropped = counter(
    'delivery_reports_dropped_total',
    'Reports given up; leases settle those jobs',
  )
  const returned = counter('jobs_returned_total', 'Claimed jobs that went back unconfirmed, by reason', [
    'reason',
  ])
  const settles = counter('settles_total', 'Settles by verb and result', ['verb', 'status'])
  const heartbeats = counter('heartbeats_total', 'Heartbeats by result', ['status'])
  const published = counter('http_published_jobs_total', 'Jobs published over HTTP')
  const promoted = counter('jobs_promoted_total', 'Scheduled jobs that this gateway made ready')
  const expired = counter('jobs_expired_total', 'Jobs that expired unstarted, as found by this gateway')
  const leasesLost = counter('leases_lost_total', 'Leases that ended unsettled, by what became of the job', [
    'state',
  ])
  const offersEnded = counter(
    'offers_ended_total',
    'Offers that ended unaccepted, by what became of the job',
    ['state'],
  )
  const notifications = counter('notifications_total', 'Notifications by what they did', ['result'])
  const reconnects = counter('listener_losses_total', 'Losses of the listening session', ['cause'])
  const roundTrip = histogram(
    'listener_heartbeat_seconds',
    'Round trip of a notification to itself',
    wakeBuckets,
  )
  const databaseErrors = counter('db_errors_total', 'Database errors by class of SQLSTATE', ['class'])
  const upkeepErrors = counter('upkeep_errors_total', 'Failed background tasks', ['task'])
  const requests = counter('http_requests_total', 'HTTP requests', ['route', 'method', 'code'])
  const requestSeconds = histogram(
    'http_request_duration_seconds',
    'Time of requests other than pulls',
    wakeBuckets,
    ['route'],
  )

  // A series that appears with its first event hides that event from rate().
  for (const cause of wakeCauses) {
    wakes.inc({ cause }, 0)
    for (const result of ['jobs', 'empty']) claims.inc({ cause, result }, 0)
  }
  for (const outcome of pullOutcomes) pulls.inc({ outcome }, 0)
  for (const cause of listenerLossCauses) reconnects.inc({ cause }, 0)
  for (const status of ['ok', 'lost', 'unknown']) {
    heartbeats.inc({ status }, 0)
    for (const verb of ['complete', 'fail', 'release']) settles.inc({ verb, status }, 0)
  }
  for (const state of ['ready', 'orphaned', 'failed', 'cancelled']) leasesLost.inc({ state }, 0)
  for (const state of ['ready', 'failed']) offersEnded.inc({ state }, 0)
  for (const result of ['woke', 'idle', 'invalid']) notifications.inc({ result }, 0)
  for (const each of errorClasses) databaseErrors.inc({ class: each }, 0)
  for (const task of [
    ...['backstop', 'due', 'fence', 'arming', 'polling', 'marks'],
    ...['snapshot', 'upkeep', 'check-up', 'last uses', 'gateways', 'unheard claims'],
  ])
    upkeepErrors.inc({ task }, 0)
  for (const outcome of ['confirmed', 'undelivered', 'in_doubt']) deliveries.inc({ outcome }, 0)
  for (const ack of ['auto', 'explicit']) proxiedPulls.inc({ ack }, 0)
  for (const reason of returnReasons) returned.inc({ reason: reason.replace(' ', '_') }, 0)

  addGauges(registry, sources, topicLabel)

  function observe(event: GatewayEvent): void {
    switch (event.type) {
      case 'wake':
        return wakes.inc({ cause: event.cause })
      case 'claim': {
        const result = event.jobs > 0 ? 'jobs' : 'empty'
        claims.inc({ cause: event.cause, result })
        claimSeconds.observe({ result }, event.seconds)
        if (event.jobs > 0)
          claimedJobs.inc({ topic: topicLabel(event.topic), cause: event.cause }, event.jobs)
        return
      }
      case 'claim failed':
        return claimSeconds.observe({ result: 'error' }, event.seconds)
      case 'job claimed':
        return publishToClaim.observe({ topic: topicLabel(event.topic) }, Math.max(0, event.readySeconds))
      case 'pull ended':
        pulls.inc({ outcome: event.outcome })
        return pullWait.observe({ outcome: event.outcome }, event.waitSeconds)
      case 'proxied pull':
        return proxiedPulls.inc({ ack: event.ack })
      case 'response written':
        return wakeToResponse.observe({}, event.wakeSeconds)
      case 'delivery':
        return deliveries.inc({ outcome: event.outcome.replace(' ', '_') }, event.jobs)
      case 'jobs returned':
        return returned.inc({ reason: event.reason.replace(' ', '_') }, event.jobs)
      case 'delivery report failed':
        return reportsDropped.inc({}, event.dropped)
      case 'settle':
        return settles.inc({ verb: event.verb, status: event.status })
      case 'jobs ended':
        return jobsEnded.inc({ topic: topicLabel(event.topic), state: event.state }, event.jobs)
      case 'heartbeat':
        return heartbeats.inc({ status: event.status })
      case 'published':
        return published.inc({}, event.jobs)
      case 'due':
        promoted.inc({}, event.promoted)
        expired.inc({}, event.expired)
        for (const [state, jobs] of Object.entries(event.leasesLost)) leasesLost.inc({ state }, jobs)
        for (const [state, jobs] of Object.entries(event.offersEnded)) offersEnded.inc({ state }, jobs)
        return
      case 'notification':
        return notifications.inc({ result: event.result })
      case 'listener lost':
        return reconnects.inc({ cause: event.cause })
      case 'listener heartbeat':
        return roundTrip.observe({}, event.seconds)
      case 'database error':
        return databaseErrors.inc({
          class: event.sqlState === 'other' ? 'other' : event.sqlState.slice(0, 2),
        })
      case 'upkeep failed':
        return upkeepErrors.inc({ task: event.task })
      case 'request':
        requests.inc({ route: event.route, method: event.method, code: String(event.status) })
        // A pull that was not even held says nothing of the others either.
        if (!event.held && (event.route !== '/subscriptions/{id}' || event.method !== 'PATCH')) {
          requestSeconds.observe({ route: event.route }, event.seconds)
        }
        return
      case 'started':
      case 'database awaited':
      case 'stopping':
      case 'stopped':
      case 'stop step failed':
      case 'listener connected':
      case 'gateway joined':
      case 'gateways buried':
      case 'sequences mended':
      case 'problem found':
      case 'request failed':
        return
    }
  }
  return { registry, observe }
}
