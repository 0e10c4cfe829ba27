import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { startFleet } from '../support/fleet.ts'
import { gatewayFor } from '../support/gateway.ts'
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
  const jobs = 300
  const busy = await leaving.subscribe('in-flight')
  const fleet = startFleet(() => [leaving, staying], busy, 10)
  const publishing = (async () => {
    const session = await database.session()
    for (let n = 0; n < jobs; n += 1) await publish(session, 'in-flight')
  })()
  await fleet.completed(jobs / 3)
  leaving.signal('SIGTERM')
  for (const answer of await Promise.all(parked)) {
    expect([answer.status, answer.headers.get('connection')]).toEqual([204, 'close'])
  }
  expect(await leaving.exited).toBe(0)
  expect(leaving.output).not.toContain('stop step failed')
  await publishing
  await fleet.completed(jobs)
  await fleet.stop()
  await expectAllDone('in-flight', jobs)
  expect([...fleet.handed.values()].filter((times) => times !== 1)).toEqual([])
  expect([...fleet.refused].filter((one) => one !== '503 draining')).toEqual([])
})

test('a rolling restart under load: each gateway is replaced, every job is done once', async () => {
  const gateways = await Promise.all([gatewayFor(database), gatewayFor(database)])
  const [first] = gateways
  const subscription = await first.subscribe('rolling')
  const fleet = startFleet(() => gateways, subscription, 10)
  const session = await database.session()
  let published = 0
  const load = async (jobs: number) => {
    for (let n = 0; n < jobs; n += 1) await publish(session, 'rolling')
    published += jobs
  }
  for (const index of [0, 1] as const) {
    const working = load(100)
    await fleet.completed(published + 50)
    expect(await gateways[index].stop('replaced')).toBe(true)
    gateways[index] = await gatewayFor(database)
    await working
  }
  await load(50)
  await fleet.completed(published)
  await fleet.stop()
  await expectAllDone('rolling', published)
  expect([...fleet.handed.values()].filter((times) => times !== 1)).toEqual([])
  expect([...fleet.refused].filter((one) => one !== '503 draining')).toEqual([])
})
