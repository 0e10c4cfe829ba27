import { expect, test } from 'vitest'
import { publish, readJob } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import type { Job } from '../support/http.ts'
import { createRandom, testSeed } from '../support/random.ts'
import type { Random } from '../support/random.ts'

const database = useDatabase()
const [jobs, executors] = [40, 6]

test('executors that break off anywhere and ask again with their key, anywhere, accept every job once', async () => {
  const random = createRandom(testSeed())
  const gateways = [await gatewayFor(database), await gatewayFor(database)]
  const topic = 'lost-answers'
  const [first] = gateways as [TestGateway, TestGateway]
  const subscription = await first.subscribe(topic, { offerSeconds: 5 })
  // Many are larger than the socket buffers of both sides hold: breaking off leaves an answer unfinished.
  for (let job = 0; job < jobs; job++) {
    const spec = JSON.stringify('x'.repeat(random.pick([10, 10, 600_000])))
    await publish(database, topic, { spec, on_lost: 'orphan', max_attempts: 1 })
  }
  const accepted = new Map<string, number>()
  let keys = 0

  /** An answer that was read to the end, or undefined where the client broke off: before it came, or amid it. */
  async function tryPull(own: Random, gateway: TestGateway, key: string): Promise<string | undefined> {
    const away = new AbortController()
    const [early, late] = [own.chance(0.15), own.chance(0.35)]
    try {
      const path = `${gateway.url}/subscriptions/${subscription}?max=2&wait=5`
      const headers = { 'Idempotency-Key': key }
      const answer = fetch(path, { method: 'PATCH', headers, signal: away.signal })
      if (early) away.abort()
      const head = await answer
      if (late) away.abort()
      return await head.text()
    } catch {
      return undefined
    }
  }
  /** The same pull until its answer was read, each time from any gateway. */
  async function pull(own: Random): Promise<{ gateway: TestGateway; given: readonly Job[] }> {
    const key = `key-${(keys += 1)}`
    for (;;) {
      const gateway = own.pick(gateways)
      const text = await tryPull(own, gateway, key)
      if (text === '') return { gateway, given: [] }
      if (text !== undefined) return { gateway, given: (JSON.parse(text) as { jobs: Job[] }).jobs }
    }
  }
  async function execute(own: Random): Promise<void> {
    while (Number(await database.value(`select count(*) from pullgate.job`)) > 0) {
      const { gateway, given } = await pull(own)
      for (const job of given) {
        // One that a ghost elsewhere was offered meanwhile, or whose offer has ended, is somebody else's.
        if ((await gateway.settle(job, 'heartbeat')).status !== 200) continue
        accepted.set(job.id, (accepted.get(job.id) ?? 0) + 1)
        expect((await gateway.settle(job, 'complete')).status).toBe(200)
      }
    }
  }
  await Promise.all(
    Array.from({ length: executors }, (_, n) => execute(createRandom(random.below(2 ** 31) + n))),
  )
  expect([accepted.size, Math.max(...accepted.values())]).toEqual([jobs, 1])
  for (const id of accepted.keys()) {
    expect(await readJob(database, id)).toMatchObject({ state: 'succeeded', attempts: 1 })
  }
})
