import { randomUUID } from 'node:crypto'
import type { Config } from './config.ts'
import { openDatabase } from './db/database.ts'
import { explained } from './db/explain.ts'
import { tellEnds } from './db/ended-jobs.ts'
import { createGatewayStore } from './db/gateway-store.ts'
import { createJobStore } from './db/job-store.ts'
import { createListener } from './db/listener.ts'
import { createQueueStore } from './db/queue-store.ts'
import { createReplayStore } from './db/replay-store.ts'
import { createSettleStore } from './db/settle-store.ts'
import { requireSchema, whenThere } from './db/start-up.ts'
import { createSubscriptionStore } from './db/subscription-store.ts'
import { createWatchStore } from './db/watch-store.ts'
import { createArming } from './dispatch/arming.ts'
import { createClaiming } from './dispatch/claiming.ts'
import { createDeliveries } from './dispatch/deliveries.ts'
import { createDispatcher } from './dispatch/dispatcher.ts'
import { createDueWork } from './dispatch/due-work.ts'
import { announceSettles, createHeldHeartbeats } from './dispatch/held-heartbeats.ts'
import { createMarks } from './dispatch/marks.ts'
import { createMembership } from './dispatch/membership.ts'
import { createSubscriptionDirectory } from './dispatch/subscription-directory.ts'
import { countsByTopic, createUpkeep } from './dispatch/upkeep.ts'
import { createWakes } from './dispatch/wakes.ts'
import { systemClock } from './domain/clock.ts'
import type { Clock } from './domain/clock.ts'
import { createHandOver } from './http/hand-over.ts'
import type { HttpServer } from './http/listening.ts'
import { createAdmin, createApi } from './http/server.ts'
import { StopSteps } from './shutdown.ts'
import { emitTo } from './telemetry/emit.ts'
import { createLogger } from './telemetry/logger.ts'
import { createMetrics } from './telemetry/metrics.ts'
import { version } from './version.ts'

export type Gateway = {
  readonly url: string
  /** Health and metrics: the same unless PULLGATE_ADMIN_PORT is set. */
  readonly adminUrl: string
  /** Drains and stops; resolves to whether all of it was clean. */
  stop(reason: string): Promise<boolean>
}

const applicationName = `pullgate/${version}`
const connectTimeoutMs = 5_000
// So many parked pulls are answered at once; beyond, the herd is spread over up to 2 s.
const spreadMsPerPull = 1
const spreadMsMax = 2_000

export type StartOptions = {
  /** Ends the wait for a database that is away. */
  readonly signal?: AbortSignal
  readonly clock?: Clock | undefined
  /** Resolves when the database is gone for good: a stop then skips the drain delay. */
  readonly lost?: Promise<void> | undefined
}

/** Resolves after the drain delay, or as soon as the database is lost: nobody can be served then. */
function drainDelay(clock: Clock, seconds: number, lost: Promise<void> | undefined): Promise<void> {
  if (seconds === 0) return Promise.resolve()
  return new Promise((resolve) => {
    const timer = clock.after(seconds * 1000, resolve)
    void lost?.then(() => {
      timer.cancel()
      resolve()
    })
  })
}

/** Wires the rooms together and starts them, the database first and the port last. Rejects with what to do. */
export async function startGateway(
  config: Config,
  databaseUrl: string,
  { signal, clock = systemClock, lost }: StartOptions = {},
): Promise<Gateway> {
  const logger = createLogger(config.PULLGATE_LOG_LEVEL, version)
  const observers = [logger.observe]
  const emit = emitTo(observers)
  const steps = new StopSteps(emit)
  const startedAt = clock.now()
  let serving = false
  /** Not ready any more, so that balancers look elsewhere; served as before until it resolves. */
  let leaving: Promise<void> | undefined
  let draining = false

  async function stop(reason: string): Promise<boolean> {
    if (leaving === undefined) emit({ type: 'stopping', reason })
    const stopAt = clock.now()
    leaving ??= drainDelay(clock, config.PULLGATE_DRAIN_DELAY_SECONDS, lost)
    await leaving
    const clean = await steps.stop(config.PULLGATE_STOP_TIMEOUT_SECONDS * 1000)
    emit({ type: 'stopped', seconds: (clock.now() - stopAt) / 1000 })
    logger.flush()
    return clean
  }

  const setting = config.DATABASE_URL === undefined ? 'the embedded Postgres' : 'DATABASE_URL'
  try {
    const opened = await explained(setting, 'serve', () =>
      openDatabase({
        url: databaseUrl,
        applicationName,
        poolMax: config.PULLGATE_POOL_MAX,
        connectTimeoutMs,
        statementTimeoutMs: config.PULLGATE_STATEMENT_TIMEOUT_MS,
        emit,
      }),
    )
    const database = tellEnds(opened, emit)
    steps.push('pool', database.close)
    const patience = {
      ...{ setting, purpose: 'serve' as const, seconds: config.PULLGATE_CONNECT_WAIT_SECONDS, signal },
      onWait: (reason: string) => emit({ type: 'database awaited', reason }),
    }
    const revision = await explained(setting, 'serve', () =>
      whenThere(patience, () => database.withClient(requireSchema)),
    )

    const membership = createMembership({
      ...{ store: createGatewayStore(database), clock, emit },
      onWithout() {
        marks.forget()
        dispatcher.kickAll('resync')
      },
      onUnlocked: (id) => listener.unlocked(id),
    })
    const { identity, held, peers } = membership
    const jobs = createJobStore(database, {
      claimStatements: Math.ceil(config.PULLGATE_POOL_MAX / 2),
      gateway: () => identity.current,
      clock,
      onUnheard: membership.unheard,
    })
    const watch = createWatchStore(database)
    const queue = createQueueStore(database)
    const subscriptions = createSubscriptionStore(database)
    const directory = createSubscriptionDirectory(subscriptions)
    const deliveries = createDeliveries({ store: jobs, held, clock, emit })
    const claiming = createClaiming({ store: jobs, identity, held, deliveries, clock, emit })
    const marks = createMarks({
      ...{ store: watch, clock, emit },
      onReseated: (topics) => topics.forEach((topic) => dispatcher.kick(topic, 'reseat')),
    })
    const arming = createArming({
      ...{ store: watch, gateway: randomUUID(), marks, clock, emit },
      kick: (topic, cause) => void dispatcher.kick(topic, cause),
      isWaitedFor: (topic) => dispatcher.isWaitedFor(topic),
      dueWork: { lookAhead: () => dueWork.lookAhead(), saw: (inMs, topic) => dueWork.saw(inMs, topic) },
    })
    const dispatcher = createDispatcher({
      ...{ store: claiming, deliveries, marks, arming, clock, emit },
      mayClaim: () => identity.current !== undefined,
    })
    const dueWork = createDueWork({
      ...{ store: watch, marks, directory, peers, dispatcher, clock, emit },
      backstopMs: config.PULLGATE_BACKSTOP_MS,
    })
    const upkeep = createUpkeep({ queue, directory, clock, emit })
    const handOver = createHandOver({ deliveries, clock, emit })
    const heldHeartbeats = createHeldHeartbeats({ clock, heldMax: config.PULLGATE_MAX_PARKED })
    const wakes = createWakes({ dispatcher, dueWork, directory, arming, marks, heldHeartbeats, emit })
    const listener = createListener({
      url: config.PULLGATE_LISTEN_DATABASE_URL ?? databaseUrl,
      applicationName,
      connectTimeoutMs,
      clock,
      emit,
      channel: 'pullgate_wake',
      notifyFromElsewhere: watch.notify,
      onNotification: wakes.notified,
      onListening(gateway) {
        membership.joined(gateway)
        wakes.resync()
        // The server may be another now, and its sequences behind.
        void upkeep.checkUp()
      },
      onLost(cause) {
        membership.lost()
        wakes.deaf(cause)
      },
    })
    const { registry, observe } = createMetrics({
      version,
      revision,
      parked: () => dispatcher.parked,
      parkedMax: config.PULLGATE_MAX_PARKED,
      draining: () => leaving !== undefined,
      listenerConnected: () => listener.connected,
      topics: () => ({ armed: arming.armed, unfenced: arming.unfenced, polled: arming.polled }),
      longTransactions: () => marks.longTransactions,
      pool: database.poolState,
      problems: upkeep.problems,
      queue: () => queueGauges(upkeep.latest()),
    })
    observers.push(observe)

    steps.push('listener', listener.close)
    const listenSetting =
      config.PULLGATE_LISTEN_DATABASE_URL === undefined ? setting : 'PULLGATE_LISTEN_DATABASE_URL'
    await explained(listenSetting, 'serve', listener.start)
    // Before its lock is let go of, so that no peer takes this gateway for dead.
    steps.push('membership', membership.stop)
    steps.push('background work', async () => {
      marks.stop()
      await Promise.all([dueWork.stop(), upkeep.stop(), arming.stop()])
    })
    dueWork.start()
    upkeep.start()

    const services = {
      settles: announceSettles(createSettleStore(database), heldHeartbeats),
      replays: createReplayStore(database),
      subscriptions,
      queue,
      directory,
      dispatcher,
      heldHeartbeats,
      handOver,
      clock,
      emit,
      queueCounts: () => {
        const latest = upkeep.latest()
        return latest && { takenAt: latest.takenAt, counts: countsByTopic(latest) }
      },
      wait: { defaultSeconds: config.PULLGATE_WAIT_SECONDS, maxSeconds: config.PULLGATE_MAX_WAIT_SECONDS },
      parkedMax: config.PULLGATE_MAX_PARKED,
      isDraining: () => draining,
    }
    const options = {
      version,
      bodyMaxBytes: config.PULLGATE_BODY_MAX_BYTES,
      keepAliveMs: config.PULLGATE_KEEP_ALIVE_SECONDS * 1000,
      admin: {
        metrics: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
        notReady: () => [...(leaving ? ['draining'] : []), ...(serving ? [] : ['starting'])],
        degraded: () =>
          listener.lostTo === undefined ? [] : [`notifications are not heard (${listener.lostTo})`],
      },
    }
    steps.push('deliveries', async () => {
      await handOver.settled()
      await deliveries.settled()
    })
    const open = async (name: string, server: HttpServer, port: number): Promise<string> => {
      const url = await server.listen(config.PULLGATE_HOST, port)
      steps.push(name, server.close)
      return url
    }
    const { PULLGATE_ADMIN_PORT: adminPort } = config
    const adminUrl =
      adminPort === undefined
        ? undefined
        : await open('admin port', createAdmin(services, options), adminPort)
    const url = await open(
      'port',
      createApi(services, options, adminPort === undefined),
      config.PULLGATE_PORT,
    )

    steps.push('parked pulls and held heartbeats', async () => {
      const held = dispatcher.parked + heldHeartbeats.size
      const spreadMs = Math.min(spreadMsMax, held * spreadMsPerPull)
      await Promise.all([dispatcher.answerAll(spreadMs), heldHeartbeats.drain(spreadMs)])
    })
    steps.push('claims', () => {
      // From here on new pulls are refused.
      draining = true
      return dispatcher.stopClaiming()
    })
    serving = true
    emit({
      type: 'started',
      url,
      adminUrl: adminUrl ?? url,
      revision,
      seconds: (clock.now() - startedAt) / 1000,
    })
    return { url, adminUrl: adminUrl ?? url, stop }
  } catch (error) {
    await steps.stop(config.PULLGATE_STOP_TIMEOUT_SECONDS * 1000)
    throw error
  }
}

type Latest = ReturnType<ReturnType<typeof createUpkeep>['latest']>

function queueGauges(latest: Latest) {
  // Nothing was counted yet, which is not the same as nothing there just now.
  if (latest === undefined) return { jobs: [], oldestReady: [], ageSeconds: NaN, durationSeconds: NaN }
  // The database counted when the snapshot was taken; its ages have grown since.
  const { counts, ageNowSeconds: ageSeconds, durationSeconds } = latest
  const oldestReady = counts.flatMap(({ topic, oldestSeconds }) =>
    oldestSeconds === null ? [] : [{ topic, seconds: oldestSeconds + ageSeconds }],
  )
  return { jobs: counts, oldestReady, ageSeconds, durationSeconds }
}
