import { expect, test } from 'vitest'
import { systemClock } from '../../src/domain/clock.ts'
import type { Clock } from '../../src/domain/clock.ts'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, noBackstop } from '../support/gateway.ts'
import { openRaw } from '../support/http-raw.ts'
import { jobOf } from '../support/http.ts'

const database = useDatabase()
const delaySeconds = 599

/** The system's, but for timers of the delay: they run when the test says so. */
function clockWithoutDelay(): { clock: Clock; over(): void } {
  const timers = new Set<() => void>()
  const after: Clock['after'] = (ms, run) => {
    if (ms !== delaySeconds * 1000) return systemClock.after(ms, run)
    timers.add(run)
    return { cancel: () => void timers.delete(run) }
  }
  return { clock: { ...systemClock, after }, over: () => timers.forEach((run) => run()) }
}

test('during the drain delay a gateway is not ready and serves as before; then it drains', async () => {
  const { clock, over } = clockWithoutDelay()
  const settings = { ...noBackstop, PULLGATE_ADMIN_PORT: 0, PULLGATE_DRAIN_DELAY_SECONDS: delaySeconds }
  const gateway = await gatewayFor(database, settings, clock)
  const subscription = await gateway.subscribe('delayed')
  const before = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1)
  const stopped = gateway.stop('test')
  const again = gateway.stop('asked again')

  const ready = await fetch(`${gateway.adminUrl}/readyz`)
  expect([ready.status, await ready.text()]).toEqual([503, 'draining\n'])
  expect(await gateway.metric('pullgate_draining')).toBe(1)
  // What was parked, a pull on a new connection, and a publish.
  const first = await publish(database, 'delayed')
  expect(jobOf(await before).id).toBe(first)
  const client = await openRaw(gateway.url)
  client.pull(subscription, '?wait=50')
  await gateway.parked(1)
  const second = await gateway.publish('delayed')
  const [, head] = await client.until(/^([^]*?)\r\n\r\n(\{[^]*\})$/)
  expect(client.received).toContain(`"id":"${second}"`)
  expect(head).not.toMatch(/^Connection: close/im)

  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1)
  over()
  expect((await parked).status).toBe(204)
  expect(await Promise.all([stopped, again])).toEqual([true, true])
})

test.each(['before', 'after'])('no drain delay when the database is lost %s the stop', async (when) => {
  const { clock } = clockWithoutDelay()
  let lose: () => void = () => undefined
  const lost = new Promise<void>((resolve) => (lose = resolve))
  const settings = { ...noBackstop, PULLGATE_DRAIN_DELAY_SECONDS: delaySeconds }
  const gateway = await gatewayFor(database, settings, clock, lost)
  if (when === 'before') lose()
  const stopped = gateway.stop('test')
  lose()
  expect(await stopped).toBe(true)
})
