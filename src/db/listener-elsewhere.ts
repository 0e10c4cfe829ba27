import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Clock } from '../domain/clock.ts'
import { NotHeard, timedOut } from './listener-causes.ts'

/**
 * Proves that a listening session hears what other sessions send. A transaction pooler answers LISTEN and even a NOTIFY
 * to oneself, in whichever session it chose; what others send arrives nowhere.
 */
export type Elsewhere = {
  /**
   * Has another session notify. Rejects if that does not arrive: NotHeard if statements work all the same. Where it
   * cannot be sent nothing is known, and the session counts.
   */
  proveHeard(session: Session, notify: (channel: string, payload: string) => Promise<unknown>): Promise<void>
  arrived(payload: string): void
}

type Session = { readonly socket: Socket; unlisten(): Promise<unknown> }

export function createElsewhere(clock: Clock, channel: string, timeoutMs: number): Elsewhere {
  let expected = ''
  let onArrival: () => void = () => undefined

  /** Undefined: not in time. */
  function within<T>(promise: Promise<T>): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const timer = clock.after(timeoutMs, () => resolve(undefined))
      promise.finally(timer.cancel).then(resolve, reject)
    })
  }

  return {
    async proveHeard({ socket, unlisten }, notify) {
      const payload = randomUUID()
      expected = payload
      const over = new Promise<void>((resolve) => {
        onArrival = resolve
        socket.once('close', resolve)
      })
      try {
        await notify(channel, payload)
      } catch {
        return
      }
      await within(over)
      if (expected !== payload) return
      // Not to leave the pooler's session listening. And if it is only us who were slow, what was on its way has come
      // by the time that this is answered.
      const answer = await within(unlisten())
      throw answer === undefined || expected !== payload
        ? timedOut('nothing came back in time')
        : new NotHeard()
    },
    arrived(payload) {
      if (payload !== expected) return
      expected = ''
      onArrival()
    },
  }
}
