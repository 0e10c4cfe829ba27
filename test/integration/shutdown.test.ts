import { expect, test } from 'vitest'
import { publish, readJob, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { claimUnderWay, gatewayFor } from '../support/gateway.ts'
import { openRaw } from '../support/http-raw.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import type { Answer, Job } from '../support/http.ts'
import { startGatewayProcess } from '../support/process.ts'

const database = useDatabase()

/** Answered because of the drain: nothing to do, and no further request on this connection. */
function expectDrained(answer: Answer): void {
  expect([answer.status, answer.headers.get('connection')]).toEqual([204, 'close'])
}

test('a stop refuses what is new, hands out what is claimed, answers the parked, and exits 0', async () => {
  const gateway = await startGatewayProcess(database, { PULLGATE_ADMIN_PORT: 0 })
  expect(gateway.adminUrl).not.toBe(gateway.url)
  const other = await gateway.subscribe('stop-other')
  const parked = [gateway.pull(other, { wait: 50 }), gateway.pull(other, { wait: 50, max: 3 })]
  await gateway.parked(2, other)
  expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200)
  const unused = await openRaw(gateway.url)
  const subscription = await gateway.subscribe('stop')
  const last = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(3, subscription)
  const { id, release } = await claimUnderWay(database, 'stop')

  gateway.signal('SIGTERM')
  await until(async () => {
    const ready = await fetch(`${gateway.adminUrl}/readyz`)
    expect([ready.status, await ready.text()]).toEqual([503, 'draining\n'])
  })
  expect(await gateway.metric('pullgate_draining')).toBe(1)
  const refused = await gateway.pull(other, { wait: 50 })
  expectProblem(refused, 503, 'draining')
  expect(refused.headers.get('connection')).toBe('close')
  expect(refused.headers.get('retry-after')).toBe('1')
  expect((await fetch(`${gateway.adminUrl}/livez`)).status).toBe(200)
  // The parked are answered only once the claims have ended.
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(3)
  await release()
  expect(jobOf(await last)).toMatchObject({ id, attempt: 1 })
  for (const pull of parked) expectDrained(await pull)
  expect(await gateway.exited).toBe(0)
  expect(await stateOf(database, id)).toBe('running')
  // The connection that was opened and never used was closed, not waited for.
  await unused.closed
  expect(gateway.output).toContain('"event":"stopped"')
  expect(gateway.output).not.toContain('stop step failed')
})

test('a claimed job whose client has gone is given back before the gateway leaves', async () => {
  const gateway = await startGatewayProcess(database)
  const subscription = await gateway.subscribe('give-back')
  const client = await openRaw(gateway.url)
  client.pull(subscription, '?wait=50')
  await gateway.parked(1, subscription)
  const { id, release } = await claimUnderWay(database, 'give-back')
  client.reset()
  await gateway.parked(0)
  gateway.signal('SIGTERM')
  await gateway.printed(/"event":"stopping"/)
  await release()
  expect(await gateway.exited).toBe(0)
  expect(await readJob(database, id)).toMatchObject({ state: 'ready', attempts: 0, deliveries: 0 })
})

test('an answer that is still being written when the stop comes arrives in full', async () => {
  const topic = 'stop-amid-answer'
  const gateway = await startGatewayProcess(database)
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  // More than the socket buffers of both sides hold.
  const spec = JSON.stringify('x'.repeat(1_000_000))
  const ids = await Promise.all(Array.from({ length: 12 }, () => publish(database, topic, { spec })))
  const client = await openRaw(gateway.url, { reading: false })
  client.pull(subscription, '?max=12&wait=50')
  await client.answered()
  gateway.signal('SIGTERM')
  await until(() => expect(fetch(`${gateway.url}/livez`)).rejects.toThrow('fetch failed'))
  const chunks: Buffer[] = []
  client.socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await client.closed
  const [, head = '', body = ''] = /^([^]*?)\r\n\r\n([^]*)$/.exec(Buffer.concat(chunks).toString()) ?? []
  expect(body.length).toBe(Number(/content-length: (\d+)/i.exec(head)?.[1]))
  expect(await gateway.exited).toBe(0)
  for (const id of ids) expect(await stateOf(database, id)).toBe('delivered')
})

test('under load a stop loses no job and leaves none running', async () => {
  const topic = 'stop-under-load'
  const [leaving, staying] = await Promise.all([startGatewayProcess(database), startGatewayProcess(database)])
  const subscription = await staying.subscribe(topic)
  const jobs = 600
  const handed = new Map<string, number>()
  let finish: () => void = () => undefined
  const finished = new Promise<void>((resolve) => (finish = resolve))
  const stop = new AbortController()
  // Read through a function: it changes while a request is awaited.
  const stopped = () => stop.signal.aborted
  let left = false

  async function execute(): Promise<void> {
    let held: Job | undefined
    while (!stop.signal.aborted) {
      const gateway = left ? staying : leaving
      try {
        if (held !== undefined) {
          const { status } = await gateway.settle(held, 'complete')
          expect(status).toBe(200)
          held = undefined
          if (handed.size === jobs) finish()
        }
        const answer = await gateway.pull(subscription, { wait: 50, signal: stop.signal })
        if (answer.status === 200) {
          held = jobOf(answer)
          handed.set(held.id, (handed.get(held.id) ?? 0) + 1)
          // In the middle of it all.
          if (handed.size === jobs / 3) leaving.signal('SIGTERM')
        } else {
          expect([204, 503]).toContain(answer.status)
          left ||= answer.headers.get('connection') === 'close'
        }
      } catch (error) {
        if (stopped()) return
        // The port is closed: the settle is repeated elsewhere.
        if (!(error instanceof TypeError)) throw error
        left = true
      }
    }
  }
  const fleet = Promise.all(Array.from({ length: 20 }, execute))
  fleet.catch(() => undefined)
  const session = await database.session()
  const published: string[] = []
  for (let n = 0; n < jobs; n += 1) published.push(await publish(session, topic))
  // An executor that fails ends the test.
  await Promise.race([finished, fleet])
  expect(await leaving.exited).toBe(0)
  await until(async () => {
    const states = await database.query(
      `select state, attempts, deliveries, count(*)::integer as jobs from pullgate.jobs
        where topic = $1 group by state, attempts, deliveries`,
      [topic],
    )
    expect(states).toEqual([{ state: 'succeeded', attempts: 1, deliveries: 1, jobs }])
  })
  stop.abort()
  await fleet
  expect([...handed.values()].filter((times) => times !== 1)).toEqual([])
  expect(new Set(handed.keys())).toEqual(new Set(published))
})

test('automatic acknowledgements are confirmed before the gateway leaves', async () => {
  const gateway = await startGatewayProcess(database)
  const subscription = await gateway.subscribe('stop-auto', { ack: 'auto' })
  const id = await publish(database, 'stop-auto')
  const client = await openRaw(gateway.url)
  client.pull(subscription)
  await client.until(/"jobSpec"/)
  gateway.signal('SIGTERM')
  expect(await gateway.exited).toBe(0)
  expect(await stateOf(database, id)).toBe('delivered')
})

test('a signal that follows at once changes nothing; one after a pause ends the process by that signal', async () => {
  const gateway = await startGatewayProcess(database)
  const subscription = await gateway.subscribe('signals')
  const cut = expect(gateway.pull(subscription, { wait: 50 })).rejects.toThrow('fetch failed')
  await gateway.parked(1, subscription)
  await claimUnderWay(database, 'signals')
  // Both are there when the gateway looks, however late it does.
  gateway.signal('SIGTERM')
  gateway.signal('SIGINT')
  await gateway.printed(/"event":"stopping"/)
  // Longer than the 2 s in which a second signal counts as a slip.
  await new Promise((resolve) => setTimeout(resolve, 2_200))
  expect(gateway.child.exitCode ?? gateway.child.signalCode).toBeNull()
  gateway.signal('SIGTERM')
  expect(await gateway.exited).toBe('SIGTERM')
  await cut
})

test('a stop that takes too long names the step and exits 1', async () => {
  const gateway = await startGatewayProcess(database, { PULLGATE_STOP_TIMEOUT_SECONDS: 1 })
  const subscription = await gateway.subscribe('too-long')
  const pull = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  await claimUnderWay(database, 'too-long')
  gateway.signal('SIGINT')
  expect(await gateway.exited).toBe(1)
  expect(gateway.output).toMatch(/"event":"stop step failed","step":"claims"/)
  // The other steps had their turn.
  expectDrained(await pull)
})

test('300 parked pulls are answered 204, spread over time', async () => {
  const gateway = await gatewayFor(database)
  const subscription = await gateway.subscribe('spread')
  // Turns of the event loop, which gateway and test share. By how much answers spread is for the unit tests to say.
  let turn = 0
  let counting = true
  const turns: number[] = []
  const pulls = Array.from({ length: 300 }, () =>
    gateway.pull(subscription, { wait: 50 }).finally(() => turns.push(turn)),
  )
  await gateway.parked(300, subscription)
  const count = () => {
    turn += 1
    if (counting) setImmediate(count)
  }
  count()
  expect(await gateway.stop('test')).toBe(true)
  for (const pull of pulls) expectDrained(await pull)
  counting = false
  expect(new Set(turns).size).toBeGreaterThan(1)
})
