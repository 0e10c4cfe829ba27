import { GatewayError } from '../domain/errors.ts'
import type { PullKey, SubscriptionId } from '../domain/types.ts'
import { isOver } from './exchange.ts'
import type { Exchange } from './exchange.ts'
import { digestOf, idempotencyKeyOf } from './idempotency-key.ts'

/** The key of a pull, if it has one: a digest, since keys are the clients'. Throws `invalid-request`. */
export function pullKeyOf(exchange: Exchange, subscription: SubscriptionId): PullKey | undefined {
  const key = idempotencyKeyOf(exchange)
  return key === undefined ? undefined : digestOf(`${subscription} ${key}`)
}

/** A pull's hold on its key, from its arrival to its end. */
export type Place = {
  readonly key: PullKey
  /** A newer pull has taken the key. */
  readonly superseded: boolean
  /** The pull, once it is parked: it is told then. */
  parked: { supersede(): void } | undefined
}

/** Each key belongs to the newest pull of this gateway that has it: the others are ghosts of a client that gave up. */
export type PullKeys = {
  /** Supersedes the one that has the key. To be called as soon as the key is known: newer is who calls later. */
  take(key: PullKey, exchange: Exchange): Place
}

export function createPullKeys(): PullKeys {
  // As many as there are exchanges under way.
  const places = new Map<PullKey, Place & { superseded: boolean }>()
  return {
    take(key, exchange) {
      const older = places.get(key)
      const place = { key, superseded: false, parked: undefined }
      // Nothing would give it up again.
      if (isOver(exchange)) return place
      places.set(key, place)
      exchange.once('close', () => {
        if (places.get(key) === place) places.delete(key)
      })
      if (older !== undefined) {
        older.superseded = true
        older.parked?.supersede()
      }
      return place
    },
  }
}

export function superseded(): GatewayError {
  return new GatewayError('superseded', {
    detail: 'a newer pull with the same Idempotency-Key has taken the place of this one; its answer counts',
  })
}

export function refuseIfSuperseded(place: Place): void {
  if (place.superseded) throw superseded()
}
