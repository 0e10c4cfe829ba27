import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { jobOf, jobsOf } from '../support/http.ts'
import type { Job } from '../support/http.ts'
import { startGatewayProcess } from '../support/process.ts'
import type { GatewayProcess } from '../support/process.ts'

const database = useDatabase()
const [jobs, publishers, executors] = [2_000, 8, 50]

test('2,000 jobs of 8 publishers reach 50 executors on 2 gateways exactly once, and complete', async () => {
  const gateways = await Promise.all([startGatewayProcess(database), startGatewayProcess(database)])
  const topic = 'exactly-once'
  const subscription = await gateways[0].subscribe(topic)
  const handed = new Map<string, number>()
  let completed = 0
  let allDone: () => void = () => undefined
  const done = new Promise<void>((resolve) => (allDone = resolve))
  const stop = new AbortController()

  function handOver({ id }: Job): void {
    handed.set(id, (handed.get(id) ?? 0) + 1)
  }
  function complete(count: number): void {
    completed += count
    if (completed === jobs) allDone()
  }
  /** One call to pull, one to settle. */
  async function executeSingly(gateway: GatewayProcess): Promise<void> {
    while (!stop.signal.aborted) {
      const answer = await gateway
        .pull(subscription, { wait: 50, signal: stop.signal })
        .catch(() => undefined)
      if (answer === undefined || answer.status === 204) continue
      const job = jobOf(answer)
      handOver(job)
      expect((await gateway.settle(job, 'complete', { result: job.attempt })).status).toBe(200)
      complete(1)
    }
  }
  /** Batches, each settled by the pull for the next. */
  async function executeInBatches(gateway: GatewayProcess): Promise<void> {
    let held: readonly Job[] = []
    while (!stop.signal.aborted) {
      const json = { complete: held.map(({ id, lease }) => ({ id, lease })) }
      // While it holds jobs it does not wait: their settling would be reported with the next ones only.
      const wait = held.length === 0 ? 20 : 0
      const options = { wait, max: 3, json, ...(wait === 0 ? {} : { signal: stop.signal }) }
      const answer = await gateway.pull(subscription, options).catch(() => undefined)
      if (answer === undefined) continue
      expect(answer.body.settled).toEqual(held.map(({ id }) => ({ id, status: 200 })))
      complete(held.length)
      held = jobsOf(answer)
      held.forEach(handOver)
    }
  }
  async function publishAll(): Promise<string[]> {
    const session = await database.session()
    const ids: string[] = []
    for (let n = 0; n < jobs / publishers; n += 1) {
      ids.push(await publish(session, topic, { spec: `{"n":${n}}` }))
    }
    return ids
  }
  const fleet = Array.from({ length: executors }, (_, n) => {
    const execute = n < executors / 2 ? executeSingly : executeInBatches
    return execute(gateways[n % 2 === 0 ? 0 : 1])
  })
  const published = Promise.all(Array.from({ length: publishers }, publishAll))
  await Promise.race([Promise.all([done, published]), Promise.all(fleet)])
  stop.abort()
  await Promise.all(fleet)

  const ids = (await published).flat()
  expect(new Set(ids).size).toBe(jobs)
  expect(new Set(handed.keys())).toEqual(new Set(ids))
  expect([...handed.values()].filter((times) => times !== 1)).toEqual([])
  expect(
    await database.query(
      `select state, attempts, deliveries, count(*)::integer as jobs from pullgate.jobs
        where topic = $1 group by state, attempts, deliveries`,
      [topic],
    ),
  ).toEqual([{ state: 'succeeded', attempts: 1, deliveries: 1, jobs }])
  for (const gateway of gateways) {
    expect(await gateway.metric('pullgate_claimed_jobs_total', { topic })).toBeGreaterThan(0)
    expect(await gateway.metric('pullgate_deliveries_total', { outcome: 'undelivered' })).toBe(0)
  }
})
