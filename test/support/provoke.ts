import { expect } from 'vitest'
import { publish } from '../sql/jobs.ts'
import type { TestDatabase } from './database.ts'
import { quiet } from './gateway.ts'
import type { TestGateway } from './gateway.ts'
import { jobOf, until } from './http.ts'
import type { Answer } from './http.ts'

/** Brings about each way in which a job reaches a pull, whatever the speed of the machine. For gateways without load. */

type Provoked = 'arrival' | 'notification' | 'fence' | 'tick'

/** Resolves once publishers notify for each of the topics. */
async function armed(database: TestDatabase, topics: readonly string[]): Promise<void> {
  await until(async () => {
    const count = `select count(distinct topic_id)::integer from pullgate.armed
      where topic_id in (select pullgate.topic_id(topic) from unnest($1::text[]) topic)`
    expect(await database.value(count, [topics])).toBe(topics.length)
  })
}

/** On topics of its own; once for each database. */
export async function provoke(database: TestDatabase, gateway: TestGateway, cause: Provoked): Promise<void> {
  const topic = `provoked-${cause}`
  const subscription = await gateway.subscribe(topic)
  const pull = () => gateway.pull(subscription, { wait: 50 })
  switch (cause) {
    case 'arrival': {
      const id = await publish(database, topic)
      expect(jobOf(await pull()).id).toBe(id)
      return
    }
    case 'notification': {
      const parked = pull()
      await gateway.parked(1, subscription)
      await quiet(gateway, subscription)
      const id = await publish(database, topic)
      expect(jobOf(await parked).id).toBe(id)
      return
    }
    case 'fence': {
      // Its publisher sees no arm, and commits behind it.
      const session = await database.session()
      await session.query('begin')
      const id = await publish(session, topic)
      const parked = pull()
      await armed(database, [topic])
      await session.query('commit')
      expect(jobOf(await parked).id).toBe(id)
      return
    }
    case 'tick':
      await provokeTick(database, gateway, topic)
  }
}

/** Three times as many notifications at once as a burst may have: most of the topics are polled from then on. */
async function provokeTick(database: TestDatabase, gateway: TestGateway, prefix: string): Promise<void> {
  const topics = Array.from({ length: 60 }, (_, n) => `${prefix}-${n}`)
  const subscriptions = await Promise.all(topics.map((topic) => gateway.subscribe(topic)))
  const pulls = subscriptions.map((subscription) => gateway.pull(subscription, { wait: 50 }))
  await armed(database, topics)
  const session = await database.session()
  await session.query('begin')
  const ids: string[] = []
  for (const topic of topics) ids.push(await publish(session, topic))
  // They are sent, and heard, together.
  await session.query('commit')
  expect((await Promise.all(pulls)).map((answer) => jobOf(answer).id)).toEqual(ids)
}

/** A job for each gateway while nobody listens: only the next session can find them. `crash` ends those there are. */
export async function provokeResync(
  database: TestDatabase,
  gateways: readonly TestGateway[],
  crash: () => Promise<void>,
): Promise<void> {
  const pulls: Promise<Answer>[] = []
  const ids: string[] = []
  for (const [n, gateway] of gateways.entries()) {
    const subscription = await gateway.subscribe(`provoked-resync-${n}`)
    pulls.push(gateway.pull(subscription, { wait: 50 }))
    await gateway.parked(1, subscription)
  }
  const session = await database.session()
  // No session can join.
  await session.query('begin; lock table pullgate.gateway in share row exclusive mode')
  await crash()
  for (const gateway of gateways) {
    await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(0))
  }
  for (const n of gateways.keys()) ids.push(await publish(database, `provoked-resync-${n}`))
  await session.query('commit')
  expect((await Promise.all(pulls)).map((answer) => jobOf(answer).id)).toEqual(ids)
}
