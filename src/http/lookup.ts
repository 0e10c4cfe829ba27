import { GatewayError } from '../domain/errors.ts'
import type { JobId, SettleStatus, Subscription, SubscriptionId } from '../domain/types.ts'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const bigintMax = 9_223_372_036_854_775_807n

const noSubscription = () =>
  new GatewayError('subscription-not-found', { detail: 'create one with POST /subscriptions' })

/** A path segment that is no id of a subscription is one that does not exist. */
export function subscriptionId(text: string | undefined): SubscriptionId {
  if (text === undefined || !uuid.test(text)) throw noSubscription()
  return text.toLowerCase()
}

export function jobId(text: string | undefined): JobId {
  if (text === undefined || !/^\d{1,19}$/.test(text) || BigInt(text) > bigintMax) throw noJob(text)
  // As the database writes it, by which others know the job.
  return text.startsWith('0') ? String(BigInt(text)) : text
}

export function noJob(id: string | undefined): GatewayError {
  return new GatewayError('job-not-found', {
    detail: `no job has the id ${(id ?? '').slice(0, 30)}; finished jobs are kept for a limited time`,
  })
}

export function found<S extends Subscription>(subscription: S | undefined): S {
  if (subscription === undefined) throw noSubscription()
  return subscription
}

export function ended(): GatewayError {
  return new GatewayError('subscription-ended', {
    detail: 'the subscription was deleted, or not used for days; create a new one',
  })
}

/** Throws what a refused settle or heartbeat is to its client. */
export function refuseUnlessOk(status: SettleStatus, id: JobId): void {
  if (status === 'ok') return
  if (status === 'unknown') throw noJob(id)
  throw new GatewayError('lease-lost', {
    detail: 'the job was claimed again or settled since this lease was given; stop working on it',
  })
}
