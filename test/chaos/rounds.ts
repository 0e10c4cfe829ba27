import { setTimeout as delay } from 'node:timers/promises'
import type { Ack } from './history.ts'
import type { Child } from './lib/children.ts'
import type { ChaosGateway } from './lib/gateway.ts'
import type { ChaosPostgres } from './lib/postgres.ts'
import { busyTopics } from './plan.ts'
import type { ExecutorPlan, RoundPlan } from './plan.ts'

/** Gives rounds to the processes that carry them out, and has what they left behind swept up. */
export type Rounds = {
  run(plan: RoundPlan): Promise<void>
  /** Every executor stops pulling; resolves when they are done with their jobs. */
  finish(): Promise<unknown>
  /** Honest executors on every gateway, until no job waits or runs any more. */
  sweep(options: { readonly until: number; readonly endLeases: boolean }): Promise<void>
  /** Of a topic without jobs. */
  readonly subscription: string
}

const leaseSeconds = 10
const acks: readonly Ack[] = ['auto', 'explicit']
const emptyTopic = 'probe'

export async function createRounds({
  postgres,
  gateways,
  executors,
  publisher,
}: {
  readonly postgres: ChaosPostgres
  readonly gateways: readonly ChaosGateway[]
  readonly executors: readonly Child[]
  readonly publisher: Child
}): Promise<Rounds> {
  const ports = gateways.map(({ port }) => port)
  const subscriptions = new Map<string, string>()
  /** Topics that were used: quiet rounds have one each. */
  const used = new Set<string>()

  async function subscribe(topic: string, ack: Ack): Promise<string> {
    const name = `${topic}/${ack}`
    const known = subscriptions.get(name)
    if (known !== undefined) return known
    const response = await fetch(`${gateways[0]?.url ?? ''}/subscriptions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ topic, ack, name, ...(ack === 'explicit' ? { leaseSeconds } : {}) }),
    })
    const { id } = (await response.json()) as { id: string }
    subscriptions.set(name, id)
    return id
  }
  for (let n = 0; n < busyTopics; n += 1) for (const ack of acks) await subscribe(`busy-${n}`, ack)
  const subscription = await subscribe(emptyTopic, 'explicit')

  async function run(plan: RoundPlan): Promise<void> {
    const { round, quiet, busyTopic, person } = plan
    const topic = quiet ? `quiet-${round}` : `busy-${busyTopic}`
    used.add(topic)
    const common = { round, topic }
    await Promise.all([
      ...plan.executors.map((one) =>
        executors[one.process]?.order({
          ...{ kind: 'execute', ...common, plan: one, ports },
          subscription: one.solo ? null : (subscriptions.get(`${topic}/${one.ack}`) ?? null),
        }),
      ),
      ...plan.publishers.map((one, index) =>
        publisher.order({
          ...{ kind: 'publish', ...common, plan: one, databaseUrl: postgres.url },
          person: index === 0 ? person : null,
        }),
      ),
    ])
  }

  function sweeper(gateway: number): ExecutorPlan {
    return {
      ...{
        name: `sweeper${gateway}`,
        process: 0,
        gateway,
        ack: 'explicit',
        solo: false,
        leaseSeconds,
        offerSeconds: null,
        keyed: false,
        max: 20,
      },
      ...{ startMs: 0, stayMs: 600_000, reading: 'normal', link: null, break: null, work: ['complete'] },
      ...{ piggyback: false, leavesAfter: null },
    }
  }

  /** Topics with live jobs, and how many of these are neither orphaned nor delivered. */
  async function live(): Promise<readonly string[]> {
    const rows = await postgres.query<{ topic: string }>(
      `select distinct l.topic from pullgate.job j join pullgate.lane l on l.topic_id = j.topic_id
        where j.state in ('scheduled', 'ready', 'offered', 'running')`,
    )
    return rows.map(({ topic }) => topic)
  }

  const finish = () => Promise.all(executors.map((child) => child.order({ kind: 'finish' })))

  async function sweep({
    until,
    endLeases,
  }: {
    readonly until: number
    readonly endLeases: boolean
  }): Promise<void> {
    const finished = finish()
    const swept = new Set<string>()
    // What is still being done with a job takes up to a second, but for those that mean to come late.
    if (endLeases) await Promise.race([finished, delay(1_500)])
    while (Date.now() < until) {
      if (endLeases) {
        await postgres.query(
          `update pullgate.job set lease_ends_at = clock_timestamp(), lease_check_at = clock_timestamp()
            where state in ('offered', 'running') and claimed_at < clock_timestamp() - interval '2 seconds'`,
        )
      }
      const topics = await live()
      if (topics.length === 0) break
      for (const [index, topic] of topics.filter((one) => !swept.has(one)).entries()) {
        swept.add(topic)
        const id = await subscribe(topic, 'explicit')
        // A quiet topic needs no more than one gateway.
        for (const gateway of topic.startsWith('busy') ? gateways.keys() : [index % gateways.length]) {
          const order = { round: -1, topic, plan: { ...sweeper(gateway), name: `${topic}/${gateway}` } }
          void executors[0]?.order({ kind: 'execute', ...order, subscription: id, ports })
        }
      }
      await delay(250)
    }
    if (!endLeases) await finished
    const left = finish()
    await (endLeases ? Promise.race([left, delay(500)]) : left)
  }

  return { run, finish, sweep, subscription }
}
