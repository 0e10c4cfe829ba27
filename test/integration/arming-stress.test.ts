import type pg from 'pg'
import { expect, test } from 'vitest'
import { publish, rows, value } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, listeningSessions, noBackstop } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { jobOf } from '../support/http.ts'
import { provoke, provokeResync } from '../support/provoke.ts'
import { createRandom, testSeed } from '../support/random.ts'
import type { Random } from '../support/random.ts'

/**
 * Rounds on many topics at once. In each, pulls come and publishers begin, pause, commit and roll back in a random
 * order, and a claim locks jobs and rolls back. There are as many pulls as jobs get committed: a wake that was lost
 * leaves a pull without its job, since no backstop comes to its help.
 */
const database = useDatabase()
const workers = 6
const rounds = Number(process.env.PULLGATE_STRESS_ROUNDS ?? 100)
// Beside three busy loops it is a minute or two.
const limitMs = 600_000
const levels = ['read committed', 'read committed', 'repeatable read', 'serializable']

type Worker = {
  readonly name: string
  readonly random: Random
  readonly publishers: readonly [pg.Client, ...pg.Client[]]
  readonly thief: pg.Client
}

async function createWorker(seed: number, index: number): Promise<Worker> {
  const session = () => database.session()
  const [thief, one, two, three] = await Promise.all([session(), session(), session(), session()])
  const random = createRandom(seed * 1_000 + index)
  return { name: `worker-${index}`, random, publishers: [one, two, three], thief }
}

type Stress = {
  readonly gateways: readonly [TestGateway, TestGateway]
  readonly received: Map<string, number>
}

async function publishOnce(session: pg.Client, topic: string, random: Random): Promise<string[]> {
  switch (random.below(4)) {
    case 0:
      return [
        await value(session, `insert into pullgate.inbox (topic, job_spec) values ($1, '1') returning id`, [
          topic,
        ]),
      ]
    case 1: {
      const many = await rows<{ id: string }>(
        session,
        `select pullgate.publish_many($1, '{1,2}'::text[]) as id`,
        [topic],
      )
      return many.map(({ id }) => id)
    }
    default:
      return [await publish(session, topic, { priority: random.below(2) })]
  }
}

/** What one publisher does, step by step; resolves to what it has committed when its last step has run. */
function publisherSteps(session: pg.Client, topic: string, random: Random, committed: string[]) {
  const own: string[] = []
  const step = async () => void own.push(...(await publishOnce(session, topic, random)))
  if (random.chance(0.4)) {
    return [
      async () => {
        await step()
        committed.push(...own)
      },
    ]
  }
  const level = random.pick(levels)
  const commits = random.chance(0.75)
  let failed = false
  /** Serialization failures are part of the stricter levels: such a publisher has rolled back. */
  const unlessFailed = (work: () => Promise<unknown>) => async () => {
    if (failed) return
    await work().catch((error: unknown) => {
      if ((error as { code?: string }).code !== '40001') throw error
      failed = true
    })
  }
  const begin = async () => {
    await session.query(`begin isolation level ${level}`)
    // The snapshot of the stricter levels.
    if (random.chance(0.5)) await session.query('select 1 from pullgate.setting')
  }
  const savepoint = async () => {
    await session.query('savepoint s')
    await publishOnce(session, topic, random)
    await session.query('rollback to savepoint s')
    await step()
  }
  const commit = unlessFailed(() => session.query(commits ? 'commit' : 'rollback'))
  const end = async () => {
    await commit()
    if (failed) await session.query('rollback')
    else if (commits) committed.push(...own)
  }
  const steps = [random.chance(0.2) ? savepoint : step, ...(random.chance(0.3) ? [step] : [])]
  return [begin, ...steps.map(unlessFailed), end]
}

/** Merges the lists at random, each in its own order. */
function interleave<T>(lists: (readonly T[])[], random: Random): T[] {
  const merged: T[] = []
  let left = lists.filter((list) => list.length > 0)
  while (left.length > 0) {
    const chosen = random.below(left.length)
    merged.push(...(left[chosen] ?? []).slice(0, 1))
    left = left
      .map((list, index) => (index === chosen ? list.slice(1) : list))
      .filter((list) => list.length > 0)
  }
  return merged
}

async function runRound(stress: Stress, worker: Worker, topic: string, subscription: string): Promise<void> {
  const { random, publishers, thief } = worker
  const committed: string[] = []
  const pulls: Promise<void>[] = []
  const pull = () => {
    const gateway = random.pick(stress.gateways)
    pulls.push(
      gateway.pull(subscription, { wait: 50 }).then((answer) => {
        const { id } = jobOf(answer)
        stress.received.set(id, (stress.received.get(id) ?? 0) + 1)
      }),
    )
  }
  const tryOnce = async () => {
    const answer = await random.pick(stress.gateways).pull(subscription, { wait: 0 })
    if (answer.status !== 200) return
    const { id } = jobOf(answer)
    stress.received.set(id, (stress.received.get(id) ?? 0) + 1)
    taken += 1
  }
  let taken = 0
  const chosen = publishers.slice(0, 1 + random.below(publishers.length))
  const thefts = random.chance(0.4)
    ? [
        async () => {
          await thief.query('begin')
          await rows(
            thief,
            `select id from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], '{3}', '{}', '{}')`,
            [topic, subscription],
          )
        },
        async () => {
          await thief.query('rollback')
        },
      ]
    : []
  const lists = [...chosen.map((session) => publisherSteps(session, topic, random, committed)), thefts]
  // Some pulls are there first, some come amid; those that are missing at the end come then.
  const early = random.below(3)
  lists.push(
    Array.from({ length: early }, () => async () => {
      await Promise.resolve()
      pull()
    }),
  )
  if (random.chance(0.2)) lists.push([tryOnce])
  for (const step of interleave(lists, random)) await step()
  while (pulls.length < committed.length - taken) pull()
  // More pulls than jobs: each gets one of these.
  const spare = pulls.length + taken - committed.length
  for (let n = 0; n < spare; n += 1) committed.push(await publish(publishers[0], topic))
  await Promise.all(pulls)
  for (const id of committed) expect([topic, id, stress.received.get(id)]).toEqual([topic, id, 1])
  await rows(worker.thief, 'select pullgate.complete(id) from unnest($1::bigint[]) as id', [committed])
}

/** One after the other, to pulls that are parked: more notifications than the budget allows for. */
async function runBurst(stress: Stress, worker: Worker, topic: string, subscription: string): Promise<void> {
  const [publisher] = worker.publishers
  const pulls = Array.from({ length: 60 }, (_, n) =>
    stress.gateways[n % 2 === 0 ? 0 : 1].pull(subscription, { wait: 50 }),
  )
  const ids: string[] = []
  for (let n = 0; n < pulls.length; n += 1) ids.push(await publish(publisher, topic))
  const got = (await Promise.all(pulls)).map((answer) => jobOf(answer).id)
  expect(new Set(got)).toEqual(new Set(ids))
  await rows(worker.thief, 'select pullgate.complete(id) from unnest($1::bigint[]) as id', [ids])
}

/** As after a crash: the registry is empty, and every session that listened is gone. */
async function crash(): Promise<void> {
  await database.query('delete from pullgate.armed')
  await database.query(`select pg_terminate_backend(pid, 5000) from (${listeningSessions}) session`)
}

async function run(stress: Stress, seed: number, between: (round: number) => Promise<void>): Promise<void> {
  const all = await Promise.all(Array.from({ length: workers }, (_, index) => createWorker(seed, index)))
  let done = 0
  await Promise.all(
    all.map(async (worker) => {
      const gateway = stress.gateways[0]
      const kept = await gateway.subscribe(worker.name)
      for (let round = 0; round < rounds; round += 1) {
        const fresh = worker.random.chance(0.4)
        const topic = fresh ? `${worker.name}-${round}` : worker.name
        const subscription = fresh ? await gateway.subscribe(topic) : kept
        if (round % 75 === 20) await runBurst(stress, worker, topic, subscription)
        else await runRound(stress, worker, topic, subscription)
        done += 1
        await between(done)
      }
    }),
  )
}

async function start(): Promise<Stress> {
  return {
    gateways: [await gatewayFor(database, noBackstop), await gatewayFor(database, noBackstop)],
    received: new Map(),
  }
}

// The random rounds meet them or not, as fast as the machine is: one of each is brought about.
const causes = ['arrival', 'notification', 'fence', 'tick'] as const

async function claimedBy(stress: Stress, cause: string): Promise<number> {
  const counts = stress.gateways.map((gateway) => gateway.metric('pullgate_claimed_jobs_total', { cause }))
  return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0)
}

test(
  'whatever the order of arms, publishers and claims, every committed job reaches a parked pull, once',
  async () => {
    const stress = await start()
    for (const cause of causes) await provoke(database, stress.gateways[0], cause)
    for (const cause of causes) expect([cause, (await claimedBy(stress, cause)) > 0]).toEqual([cause, true])
    await run(stress, testSeed(), () => Promise.resolve())
    expect(await claimedBy(stress, 'backstop')).toBe(0)
  },
  limitMs,
)

test(
  'also when the registry is lost and the listeners with it, again and again',
  async () => {
    const stress = await start()
    await run(stress, testSeed(), async (round) => {
      if (round % 40 === 0) await crash()
    })
    await provokeResync(database, stress.gateways, crash)
    expect(await claimedBy(stress, 'resync')).toBeGreaterThanOrEqual(stress.gateways.length)
    expect(await claimedBy(stress, 'backstop')).toBe(0)
  },
  limitMs,
)
