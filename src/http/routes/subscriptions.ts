import type { SubscriptionUse } from '../../domain/ports.ts'
import type { Subscription } from '../../domain/types.ts'
import { refuseIdempotencyKey } from '../idempotency-key.ts'
import { found, subscriptionId } from '../lookup.ts'
import { defineRoute } from '../route.ts'
import type { Route } from '../route.ts'
import {
  endQuery,
  noQuery,
  subscribeBody,
  subscriptionAnswer,
  subscriptionList,
  subscriptionUse,
} from '../schemas.ts'
import type { Services } from '../services.ts'

function present(subscription: Subscription) {
  const { topics, id, ack, name, leaseSeconds, offerSeconds, maxParked, createdAt } = subscription
  const names = topics.map((topic) => topic.name)
  return { id, topics: names, ack, name, leaseSeconds, offerSeconds, maxParked, createdAt }
}

const leaseSecondsDefault = 60

export function subscriptionRoutes(services: Services): Route[] {
  const { subscriptions, directory, dispatcher, heldHeartbeats } = services
  const presentUse = (use: SubscriptionUse) => ({
    ...present(use),
    parked: dispatcher.parkedFor(use.id),
    jobsHeld: use.jobsHeld,
    lastPullAt: use.lastPullAt,
    endedAt: use.endedAt,
  })

  return [
    defineRoute({
      method: 'post',
      path: '/subscriptions',
      summary: 'Create a subscription; the name of a live one with the same settings returns that one',
      query: noQuery,
      body: subscribeBody,
      responses: { 200: { description: 'The effective settings', schema: subscriptionAnswer } },
      async handle({ exchange, body }) {
        if (body.name === undefined) {
          refuseIdempotencyKey(
            exchange,
            'give the subscription a name instead: the same request then returns it again',
          )
        }
        const subscription = await subscriptions.create({
          topics: body.topics ?? [body.topic ?? ''],
          name: body.name ?? null,
          ack: body.ack,
          leaseSeconds: body.leaseSeconds ?? leaseSecondsDefault,
          offerSeconds: body.offerSeconds ?? null,
          maxParked: body.maxParked ?? null,
        })
        return { status: 200, body: present(subscription) }
      },
    }),
    defineRoute({
      method: 'get',
      path: '/subscriptions',
      summary: 'The live subscriptions, oldest first, at most 1,000',
      query: noQuery,
      responses: { 200: { description: 'Settings and use', schema: subscriptionList } },
      async handle() {
        const all = await subscriptions.list()
        return { status: 200, body: { subscriptions: all.map(presentUse) } }
      },
    }),
    defineRoute({
      method: 'get',
      path: '/subscriptions/{id}',
      summary: 'One subscription, also for 14 days after its end',
      query: noQuery,
      responses: { 200: { description: 'Settings and use', schema: subscriptionUse } },
      async handle({ params }) {
        const use = found(await subscriptions.read(subscriptionId(params.id)))
        return { status: 200, body: presentUse(use) }
      },
    }),
    defineRoute({
      method: 'delete',
      path: '/subscriptions/{id}',
      summary: 'End a subscription; its parked pulls are answered 410',
      query: endQuery,
      responses: { 204: { description: 'It has ended' } },
      async handle({ params, query }) {
        const id = subscriptionId(params.id)
        const gone = await subscriptions.end(id, query.release)
        if (gone === null) found(undefined)
        directory.forget([id])
        // Which of the jobs the subscription held is not known here: every held heartbeat asks for its lease again.
        if (query.release) heldHeartbeats.announcedAll()
        // Here at once; elsewhere the notification, or the backstop within a second.
        await dispatcher.endSubscriptions([id])
        return { status: 204 }
      },
    }),
  ]
}
