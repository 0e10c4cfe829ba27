import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { startFleet } from '../support/fleet.ts'
import { startGatewayProcess } from '../support/process.ts'

const database = useDatabase()

/** Of a topic: nothing but completed jobs, each at the first attempt. */
async function expectAllDone(topic: string, jobs: number): Promise<void> {
  const states = await database.query(
    `select state, attempts, deliveries, count(*)::integer as jobs from pullgate.jobs
      where topic = $1 group by state, attempts, deliveries`,
    [topic],
  )
  expect(states).toEqual([{ state: 'succeeded', attempts: 1, deliveries: 1, jobs }])
}

test('SIGTERM with 1,000 parked pulls and jobs in flight: every pull is answered, no lease stays, exit 0', async () => {
  const [leaving, staying] = await Promise.all([startGatewayProcess(database), startGatewayProcess(database)])
  const idle = await leaving.subscribe('parked')
  const parked = Array.from({ length: 1_000 }, () => leaving.pull(idle, { wait: 55 }))
  await leaving.parked(1_000)
  const busy = await leaving.subscribe('in-flight')
  const fleet = startFleet(() => [leaving, staying], busy, 20)
  const publishing = (async () => {
    const session = await database.session()
    for (let n = 0; n < 600; n += 1) await publish(session, 'in-flight')
  })()
  await fleet.completed(200)
  leaving.signal('SIGTERM')
  for (const answer of await Promise.all(parked)) {
    expect([answer.status, answer.headers.get('connection')]).toEqual([204, 'close'])
  }
  expect(await leaving.exited).toBe(0)
  expect(leaving.output).not.toContain('stop step failed')
  await publishing
  await fleet.completed(600)
  await fleet.stop()
  await expectAllDone('in-flight', 600)
  expect([...fleet.handed.values()].filter((times) => times !== 1)).toEqual([])
  expect([...fleet.refused].filter((one) => one !== '503 draining')).toEqual([])
})

test('a rolling restart under load: each gateway is replaced, every job is done once', async () => {
  const gateways = await Promise.all([startGatewayProcess(database), startGatewayProcess(database)])
  const [first] = gateways
  const subscription = await first.subscribe('rolling')
  const fleet = startFleet(() => gateways, subscription, 20)
  const session = await database.session()
  let published = 0
  const load = async (jobs: number) => {
    for (let n = 0; n < jobs; n += 1) await publish(session, 'rolling')
    published += jobs
  }
  for (const index of [0, 1] as const) {
    const working = load(200)
    await fleet.completed(published + 100)
    const old = gateways[index]
    old.signal('SIGTERM')
    expect(await old.exited).toBe(0)
    gateways[index] = await startGatewayProcess(database)
    await working
  }
  await load(100)
  await fleet.completed(published)
  await fleet.stop()
  await expectAllDone('rolling', published)
  expect([...fleet.handed.values()].filter((times) => times !== 1)).toEqual([])
  expect([...fleet.refused].filter((one) => one !== '503 draining')).toEqual([])
})
