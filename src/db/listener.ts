import { randomUUID } from 'node:crypto'
import { Socket } from 'node:net'
import pgListen from 'pg-listen'
import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import type { ListenerLossCause } from '../domain/types.ts'
import { joinGateway, withItsClient } from './gateway-session.ts'
import { causeOf, NotHeard, timedOut } from './listener-causes.ts'
import { createElsewhere } from './listener-elsewhere.ts'
import { createPrimary } from './primary.ts'
import { claimSession } from './session.ts'

/**
 * Hears NOTIFY on one session of its own, outside the pool.
 *
 * pg-listen gives up reconnecting after 3 s by default, goes on for ever after close() if told never to give up,
 * never times out its own check, and marks a channel as listened to before LISTEN succeeded. So each of its
 * subscribers serves one connection here: retryLimit 1 makes it report a loss at once, and the reconnecting,
 * the heartbeat and the closing are ours. JSON payloads are switched off: any role may NOTIFY anything.
 */
export type ListenerOptions = {
  /** May name several servers: the session is one of the primary. */
  readonly url: string
  readonly applicationName: string
  readonly channel: string
  readonly clock: Clock
  readonly emit: Emit
  readonly connectTimeoutMs?: number
  readonly heartbeatMs?: number
  /** NOTIFY by another session: what it sends has to arrive here, or this session is of no use. */
  readonly notifyFromElsewhere?: (channel: string, payload: string) => Promise<unknown>
  readonly onNotification: (payload: string) => void
  /**
   * LISTEN has been committed, at first and after every loss: whatever was sent before may have been missed. The
   * session has this id as a gateway, a new one each time.
   */
  readonly onListening: (gateway: number) => void
  /** Nothing is heard until onListening: the session was lost, or the cause is another than it was. */
  readonly onLost: (cause: ListenerLossCause) => void
}

export type Listener = {
  /**
   * Rejects if the first connection or LISTEN fails; later losses are mended for as long as it takes. Behind a
   * transaction pooler it resolves, deaf.
   */
  start(): Promise<void>
  readonly connected: boolean
  /** Why nothing is heard at the moment. */
  readonly lostTo: ListenerLossCause | undefined
  /** The lock on this id is free: if it is the session's, that has ended, whatever its socket says. */
  unlocked(gateway: number): void
  close(): Promise<void>
}

// A CommonJS module whose default export Node does not unwrap.
const createSubscriber = withItsClient(pgListen.default)

type Session = {
  readonly socket: Socket
  gateway: number
  end(): void
  notify(channel: string, payload: string): Promise<unknown>
  unlisten(): Promise<unknown>
  /** What the operating system said of the connection when it broke. */
  broken: Error | undefined
}

const heartbeatsMissedMax = 2
const backoffMaxMs = 30_000
// What keeps notifications away is the configuration: nobody waits for it to change by itself.
const notHeardPauseMs = 300_000
const endedByServer = 'Connection terminated by the server, or by a proxy in front of it'

export function createListener(options: ListenerOptions): Listener {
  const { clock, emit, connectTimeoutMs = 5_000, heartbeatMs = 5_000 } = options
  // A channel of this process: its round trip proves delivery without waking other gateways' topics.
  const heartbeatChannel = `pullgate_heartbeat_${randomUUID().replaceAll('-', '')}`
  let session: Session | undefined
  let connecting: Session | undefined
  let retry: Timer | undefined
  let heartbeat: Timer | undefined
  let failures = 0
  let closed = false
  let lostTo: ListenerLossCause | undefined
  let outstanding:
    { readonly payload: string; readonly sentAt: number; missed: number; sent: boolean } | undefined
  const primary = createPrimary(options.url, connectTimeoutMs)
  const elsewhere = createElsewhere(clock, heartbeatChannel, heartbeatMs)

  async function connect(): Promise<void> {
    const server = await primary.find()
    if (isClosed()) return
    const socket = new Socket()
    const subscriber = createSubscriber(
      {
        connectionString: server,
        application_name: options.applicationName,
        keepAlive: true,
        keepAliveInitialDelayMillis: 15_000,
        // Ours, so that a half-open connection can be cut: end() would wait for the other side.
        stream: () => socket,
      },
      {
        paranoidChecking: false,
        retryLimit: 1,
        parse: (text) => text,
        serialize: (value) => value as string,
      },
    )
    socket.on('error', (error) => (own.broken ??= error))
    const own: Session = {
      socket,
      broken: undefined,
      gateway: 0,
      end: () => {
        subscriber.close().catch(() => undefined)
        socket.destroy()
      },
      notify: (channel, payload) => subscriber.notify(channel, payload),
      unlisten: () => subscriber.unlistenAll(),
    }
    let established = false
    subscriber.events.on('error', () => {
      // Its own error says no more than that it will not reconnect.
      if (established) lost(own, own.broken ?? new Error(endedByServer))
    })
    subscriber.events.on('notification', (notification: { channel: string; payload?: unknown }) => {
      const payload = typeof notification.payload === 'string' ? notification.payload : ''
      if (notification.channel === heartbeatChannel) answered(payload)
      else if (own === session) options.onNotification(payload)
    })
    connecting = own
    const limit = () =>
      clock.after(connectTimeoutMs, () => socket.destroy(timedOut('connecting took too long')))
    let timer = limit()
    try {
      await subscriber.connect()
      await subscriber.listenTo(options.channel)
      await subscriber.listenTo(heartbeatChannel)
      timer.cancel()
      if (options.notifyFromElsewhere !== undefined)
        await elsewhere.proveHeard(own, options.notifyFromElsewhere)
      if (socket.destroyed) throw new Error(endedByServer)
      // Not before: behind a transaction pooler these would be of a session that serves others as well.
      timer = limit()
      await claimSession(subscriber.client)
      own.gateway = await joinGateway(subscriber.client)
    } catch (error) {
      own.end()
      throw own.broken ?? error
    } finally {
      timer.cancel()
      connecting = undefined
    }
    if (isClosed()) {
      own.end()
      return
    }
    established = true
    session = own
    lostTo = undefined
    failures = 0
    outstanding = undefined
    emit({ type: 'listener connected' })
    scheduleHeartbeat(own)
    options.onListening(own.gateway)
  }

  // Read through a function: it changes while a step is awaited.
  function isClosed(): boolean {
    return closed
  }

  function lost(which: Session, error: unknown): void {
    if (which !== session || closed) return
    session = undefined
    heartbeat?.cancel()
    which.end()
    deaf(error)
    reconnect()
  }

  function deaf(error: unknown): void {
    const cause = causeOf(error)
    const isNew = cause !== lostTo
    // A pooler stays one until somebody changes the configuration: once is enough.
    if (isNew || cause !== 'pooler') emit({ type: 'listener lost', cause, reason: asError(error).message })
    lostTo = cause
    if (isNew) options.onLost(cause)
  }

  function reconnect(): void {
    // Full jitter, so that the gateways of a restarted server do not come back as one.
    const backoffMs = failures === 0 ? 0 : clock.random() * Math.min(backoffMaxMs, 250 * 2 ** failures)
    failures += 1
    const pauseMs = lostTo === 'pooler' && failures > 1 ? notHeardPauseMs : backoffMs
    retry = clock.after(pauseMs, () => {
      connect().catch((error: unknown) => {
        if (closed) return
        deaf(error)
        reconnect()
      })
    })
  }

  function scheduleHeartbeat(own: Session): void {
    heartbeat = clock.after(heartbeatMs, () => {
      if (own !== session) return
      if (outstanding === undefined) {
        const sending = { payload: randomUUID(), sentAt: clock.now(), missed: 0, sent: false }
        outstanding = sending
        own.notify(heartbeatChannel, sending.payload).then(
          () => (sending.sent = true),
          (error: unknown) => lost(own, own.broken ?? error),
        )
      } else if (++outstanding.missed >= heartbeatsMissedMax) {
        const silent = timedOut(`nothing came back in ${heartbeatsMissedMax} heartbeats`)
        lost(own, outstanding.sent ? new NotHeard() : silent)
        return
      }
      scheduleHeartbeat(own)
    })
  }

  function answered(payload: string): void {
    elsewhere.arrived(payload)
    if (outstanding?.payload !== payload) return
    emit({ type: 'listener heartbeat', seconds: (clock.now() - outstanding.sentAt) / 1000 })
    outstanding = undefined
  }

  async function start(): Promise<void> {
    try {
      await connect()
    } catch (error) {
      if (causeOf(error) !== 'pooler') throw error
      failures = 1
      deaf(error)
      reconnect()
    }
  }

  return {
    start,
    get lostTo() {
      return lostTo
    },
    get connected() {
      return session !== undefined
    },
    unlocked(gateway) {
      if (session?.gateway === gateway) lost(session, timedOut('the lock of this gateway was free'))
    },
    close() {
      closed = true
      retry?.cancel()
      heartbeat?.cancel()
      connecting?.end()
      session?.end()
      session = undefined
      return Promise.resolve()
    },
  }
}
