import { GatewayError } from '../../domain/errors.ts'
import type { Topic, TopicCounts } from '../../domain/reads.ts'
import { digestOf, idempotencyKeyOf } from '../idempotency-key.ts'
import { cutJson } from '../json-text.ts'
import { defineRoute, validate } from '../route.ts'
import type { Route } from '../route.ts'
import {
  noQuery,
  pathParams,
  publishAnswer,
  publishBody,
  publishHeaders,
  topicAnswer,
  topicList,
} from '../schemas.ts'
import type { Services } from '../services.ts'

export function topicRoutes({ queue, queueCounts, dispatcher, emit }: Services): Route[] {
  const present = (
    topic: Topic,
    { jobs, oldestReadySeconds }: TopicCounts,
    parked: ReadonlyMap<string, number>,
  ) => {
    const { scheduled = 0, ready = 0, offered = 0, running = 0, delivered = 0, orphaned = 0 } = jobs
    return {
      name: topic.name,
      paused: topic.paused,
      maxAttempts: topic.maxAttempts,
      onLost: topic.onLost,
      jobs: { scheduled, ready, offered, running, delivered, orphaned },
      oldestReadySeconds,
      parked: parked.get(topic.name) ?? 0,
      desiredExecutors: (topic.paused ? 0 : ready) + offered + running,
    }
  }

  return [
    defineRoute({
      method: 'get',
      path: '/topics',
      summary: 'All topics; the counts are those of the metrics',
      query: noQuery,
      responses: { 200: { description: 'Topics by name', schema: topicList } },
      async handle() {
        const topics = await queue.readTopics()
        const kept = queueCounts()
        const parked = dispatcher.parkedByTopic()
        const none: TopicCounts = { jobs: {}, oldestReadySeconds: null }
        return {
          status: 200,
          body: {
            topics: topics.map((topic) => present(topic, kept?.counts(topic.name) ?? none, parked)),
            countedAt: kept?.takenAt ?? null,
          },
        }
      },
    }),
    defineRoute({
      method: 'get',
      path: '/topics/{topic}',
      summary: 'One topic, counted now; desiredExecutors is a target for an autoscaler',
      query: noQuery,
      responses: { 200: { description: 'The topic', schema: topicAnswer } },
      async handle({ params }) {
        const topic = await queue.readTopic(validate(pathParams.topic, 'topic', params.topic))
        if (topic === undefined) throw new GatewayError('topic-not-found')
        return { status: 200, body: present(topic, topic, dispatcher.parkedByTopic()) }
      },
    }),
    defineRoute({
      method: 'post',
      path: '/topics/{topic}/jobs',
      summary: 'Publish, for those who cannot reach SQL; jobSpec is kept byte for byte',
      query: noQuery,
      headers: publishHeaders,
      body: publishBody,
      responses: {
        201: { description: 'Published: the job is new', schema: publishAnswer },
        200: {
          description:
            'Nothing was added: an unfinished job holds the dedupeKey, or the request was answered before',
          schema: publishAnswer,
        },
      },
      async handle({ exchange, params, body, bodyText }) {
        const topic = validate(pathParams.topic, 'topic', params.topic)
        const jobSpec = cutJson(bodyText).get('jobSpec')
        if (jobSpec === undefined) throw new Error('the schema let a body without jobSpec pass')
        if (body.runAt !== undefined && body.delaySeconds !== undefined) {
          const fields = [{ field: 'delaySeconds', message: 'excludes runAt' }]
          throw new GatewayError('invalid-request', { detail: 'give one of runAt and delaySeconds', fields })
        }
        const key = idempotencyKeyOf(exchange)
        const request =
          key === undefined ? undefined : { key: digestOf(`${topic} ${key}`), body: digestOf(bodyText) }
        const { id, isNew } = await queue.publish(topic, jobSpec, body, request)
        if (isNew) emit({ type: 'published', jobs: 1 })
        return { status: isNew ? 201 : 200, body: { id }, headers: { Location: `/jobs/${id}` } }
      },
    }),
  ]
}
