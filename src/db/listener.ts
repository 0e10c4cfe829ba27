import { randomUUID } from 'node:crypto'
import { Socket } from 'node:net'
import pgListen from 'pg-listen'
import type { Clock, Timer } from '../domain/clock.ts'
import { asError } from '../domain/errors.ts'
import type { Emit } from '../domain/events.ts'
import { joinGateway, withItsClient } from './gateway-session.ts'

/**
 * Hears NOTIFY on one session of its own, outside the pool.
 *
 * pg-listen gives up reconnecting after 3 s by default, goes on for ever after close() if told never to give up,
 * never times out its own check, and marks a channel as listened to before LISTEN succeeded. So each of its
 * subscribers serves one connection here: retryLimit 1 makes it report a loss at once, and the reconnecting,
 * the heartbeat and the closing are ours. JSON payloads are switched off: any role may NOTIFY anything.
 */
export type ListenerOptions = {
  readonly url: string
  readonly applicationName: string
  readonly channel: string
  readonly clock: Clock
  readonly emit: Emit
  readonly connectTimeoutMs?: number
  readonly heartbeatMs?: number
  readonly onNotification: (payload: string) => void
  /**
   * LISTEN has been committed, at first and after every loss: whatever was sent before may have been missed. The
   * session has this id as a gateway, a new one each time.
   */
  readonly onListening: (gateway: number) => void
  /** The session was lost: nothing is heard until onListening. */
  readonly onLost: () => void
}

export type Listener = {
  /** Rejects if the first connection or LISTEN fails; later losses are mended for as long as it takes. */
  start(): Promise<void>
  readonly connected: boolean
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
}

const heartbeatsMissedMax = 2
const backoffMaxMs = 30_000

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
  let outstanding: { readonly payload: string; readonly sentAt: number; missed: number } | undefined

  async function connect(): Promise<void> {
    const socket = new Socket()
    const subscriber = createSubscriber(
      {
        connectionString: options.url,
        application_name: options.applicationName,
        connectionTimeoutMillis: connectTimeoutMs,
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
    const own: Session = {
      socket,
      gateway: 0,
      end: () => {
        subscriber.close().catch(() => undefined)
        socket.destroy()
      },
      notify: (channel, payload) => subscriber.notify(channel, payload),
    }
    let established = false
    subscriber.events.on('error', (error: Error) => {
      if (established) lost(own, error.message)
    })
    subscriber.events.on('notification', (notification: { channel: string; payload?: unknown }) => {
      if (own !== session) return
      const payload = typeof notification.payload === 'string' ? notification.payload : ''
      if (notification.channel === heartbeatChannel) answered(payload)
      else options.onNotification(payload)
    })
    connecting = own
    const timer = clock.after(connectTimeoutMs, () => socket.destroy(new Error('connecting took too long')))
    try {
      await subscriber.connect()
      own.gateway = await joinGateway(subscriber.client)
      await subscriber.listenTo(options.channel)
      await subscriber.listenTo(heartbeatChannel)
    } catch (error) {
      own.end()
      throw error
    } finally {
      timer.cancel()
      connecting = undefined
    }
    if (closed) {
      own.end()
      return
    }
    established = true
    session = own
    failures = 0
    outstanding = undefined
    emit({ type: 'listener connected' })
    scheduleHeartbeat(own)
    options.onListening(own.gateway)
  }

  function lost(which: Session, reason: string): void {
    if (which !== session || closed) return
    session = undefined
    heartbeat?.cancel()
    which.end()
    emit({ type: 'listener lost', reason })
    options.onLost()
    reconnect()
  }

  function reconnect(): void {
    // Full jitter, so that the gateways of a restarted server do not come back as one.
    const delay = failures === 0 ? 0 : clock.random() * Math.min(backoffMaxMs, 250 * 2 ** failures)
    failures += 1
    retry = clock.after(delay, () => {
      connect().catch((error: unknown) => {
        if (closed) return
        emit({ type: 'listener lost', reason: asError(error).message })
        reconnect()
      })
    })
  }

  function scheduleHeartbeat(own: Session): void {
    heartbeat = clock.after(heartbeatMs, () => {
      if (own !== session) return
      if (outstanding === undefined) {
        outstanding = { payload: randomUUID(), sentAt: clock.now(), missed: 0 }
        own.notify(heartbeatChannel, outstanding.payload).catch((error: unknown) => {
          lost(own, asError(error).message)
        })
      } else if (++outstanding.missed >= heartbeatsMissedMax) {
        lost(own, `no notification came back in ${heartbeatsMissedMax} heartbeats`)
        return
      }
      scheduleHeartbeat(own)
    })
  }

  function answered(payload: string): void {
    if (outstanding?.payload !== payload) return
    emit({ type: 'listener heartbeat', seconds: (clock.now() - outstanding.sentAt) / 1000 })
    outstanding = undefined
  }

  return {
    start: connect,
    get connected() {
      return session !== undefined
    },
    unlocked(gateway) {
      if (session?.gateway === gateway) lost(session, 'the lock of this gateway was free')
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
