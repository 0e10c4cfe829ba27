import type pg from 'pg'
import { expect, test } from 'vitest'
import { publish, rows, value } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, noBackstop } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { jobsOf, until } from '../support/http.ts'
import { createRandom, testSeed } from '../support/random.ts'
import type { Random } from '../support/random.ts'

/**
 * Claims that begin above a mark strand whatever becomes ready below it. Here jobs commit late, come back, and lie under
 * claims that roll back, while two gateways claim thousands of others and move their marks.
 */
const database = useDatabase()
const topic = 'marks-stress'
const jobs = Number(process.env.PULLGATE_STRESS_JOBS ?? 6_000)

/** Jobs that have been committed; those that were completed; releases under way. */
type Tally = {
  readonly committed: Set<string>
  readonly completed: Set<string>
  readonly back: Promise<unknown>[]
}

async function publishLate(session: pg.Client, random: Random, { committed }: Tally, left: () => boolean) {
  const open: string[] = []
  while (left()) {
    await session.query('begin')
    const count = 1 + random.below(3)
    for (let n = 0; n < count; n += 1) open.push(await publish(session, topic))
    // Statements that are somebody else's: so long the transaction stays open.
    for (let n = random.below(30); n > 0; n -= 1) await value(session, 'select 1')
    const commits = random.chance(0.8)
    await session.query(commits ? 'commit' : 'rollback')
    if (commits) for (const id of open) committed.add(id)
    open.length = 0
  }
}

/** Jobs in bulk, so that marks have something to move over. */
async function publishMany(session: pg.Client, { committed }: Tally) {
  while (committed.size < jobs) {
    const specs = Array.from({ length: 40 }, () => '1')
    const many = await rows<{ id: string }>(session, 'select pullgate.publish_many($1, $2::text[]) as id', [
      topic,
      specs,
    ])
    for (const { id } of many) committed.add(id)
  }
}

async function claimAndRollBack(
  session: pg.Client,
  subscription: string,
  random: Random,
  left: () => boolean,
) {
  while (left()) {
    await session.query('begin')
    await rows(
      session,
      `select id from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], array[$3::integer], '{}', '{}')`,
      [topic, subscription, 1 + random.below(20)],
    )
    for (let n = random.below(20); n > 0; n -= 1) await value(session, 'select 1')
    await session.query('rollback')
  }
}

async function execute(
  gateway: TestGateway,
  subscription: string,
  random: Random,
  tally: Tally,
  left: () => boolean,
) {
  while (left()) {
    const found = await gateway.pull(subscription, { wait: 1, max: 20 })
    if (found.status === 204) continue
    const held = jobsOf(found)
    const verbs = { complete: [], fail: [], release: [] } as Record<string, object[]>
    for (const { id, lease } of held) {
      expect(tally.completed.has(id)).toBe(false)
      const choice = random.below(20)
      if (choice === 0) verbs.release?.push({ id, lease })
      else if (choice === 1) verbs.fail?.push({ id, lease, error: 'again', retryAfterSeconds: 0 })
      else {
        verbs.complete?.push({ id, lease })
        tally.completed.add(id)
      }
    }
    await gateway.pull(subscription, { wait: 0, max: 1, json: verbs }).then((answer) => {
      for (const settled of answer.body.settled as { status: number }[]) expect(settled.status).toBe(200)
      for (const job of jobsOf(answer)) tally.back.push(gateway.settle(job, 'release'))
    })
  }
}

test('no job is stranded below a mark: late, rolled-back, returned and long ones are all claimed', async () => {
  const seed = testSeed()
  const gateways = [await gatewayFor(database, noBackstop), await gatewayFor(database, noBackstop)] as const
  const subscription = await gateways[0].subscribe(topic)
  const tally: Tally = { committed: new Set(), completed: new Set(), back: [] }
  const long = await database.session()
  let publishing = true
  let running = true
  const [bulk, thief, ...late] = await Promise.all(Array.from({ length: 5 }, () => database.session()))
  if (bulk === undefined || thief === undefined) throw new Error('five sessions were asked for')
  await database.query('select pullgate.configure_topic($1, max_attempts => 100)', [topic])

  // Its jobs have the lowest places of all, and are committed when marks have long moved on without it.
  await long.query('begin')
  const longIds = [await publish(long, topic), await publish(long, topic)]
  const random = (index: number) => createRandom(seed * 100 + index)
  const publishers = [
    publishMany(bulk, tally),
    ...late.map((session, index) => publishLate(session, random(index), tally, () => publishing)),
    claimAndRollBack(thief, subscription, random(10), () => publishing),
  ]
  const executors = [0, 1, 2, 3, 4, 5].map((index) =>
    execute(gateways[index % 2 === 0 ? 0 : 1], subscription, random(20 + index), tally, () => running),
  )
  const work = Promise.all([...publishers, ...executors])
  work.catch(() => undefined)
  const watched = (async () => {
    for (const gateway of gateways) {
      // On a busy machine the late publishers' transactions count as long too.
      await until(async () =>
        expect(await gateway.metric('pullgate_long_transactions')).toBeGreaterThanOrEqual(1),
      )
    }
    await long.query('commit')
    for (const id of longIds) tally.committed.add(id)
  })()
  await Promise.race([Promise.all([publishers[0], watched]), work])
  publishing = false
  await Promise.race([Promise.all(publishers), work])
  await until(() => expect([...tally.committed].filter((id) => !tally.completed.has(id))).toEqual([]))
  running = false
  await work
  await Promise.all(tally.back)
  expect(tally.completed.size).toBe(tally.committed.size)
  for (const gateway of gateways) {
    expect(await gateway.metric('pullgate_claimed_jobs_total', { cause: 'backstop' })).toBe(0)
  }
})
