import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { useGateway } from '../support/gateway.ts'
import { apiOf, expectProblem, jobOf, until } from '../support/http.ts'
import type { Api } from '../support/http.ts'
import { commandOf, programOf, proxyNames, startProxy } from '../support/proxies.ts'
import { swallowingProxy } from '../support/swallowing-proxy.ts'

/** docs/proxies.md: its snippets are what runs here, and what it says of clients that give up. */
const database = useDatabase()
const gateway = useGateway(database)
// Longer than anything here waits for: a pull that has gone was given up, and did not run out.
const wait = 55
const bodyMaxBytes = 2_097_152

/** A pull through the proxy that its client gives up once it is parked. */
async function givenUp(proxied: Api, subscription: string): Promise<void> {
  const client = new AbortController()
  const pull = proxied.pull(subscription, { wait, signal: client.signal }).catch(() => undefined)
  await gateway.parked(1)
  client.abort()
  await pull
}

describe('behind a proxy that hides clients that give up', () => {
  test('a job with automatic acknowledgement is delivered to nobody', async () => {
    const proxied = apiOf(await swallowingProxy(gateway.url))
    const subscription = await proxied.subscribe('hidden', { ack: 'auto' })
    await givenUp(proxied, subscription)
    const job = await gateway.publish('hidden')
    await until(async () => expect(await gateway.state(job)).toBe('delivered'))
    expect((await proxied.pull(subscription, { wait: 0 })).status).toBe(204)
  })
  test('a job that was only offered goes to the next client, and has cost no attempt', async () => {
    const proxied = apiOf(await swallowingProxy(gateway.url))
    const subscription = await proxied.subscribe('offered', { offerSeconds: 5 })
    await givenUp(proxied, subscription)
    const id = await gateway.publish('offered')
    await until(async () => expect(await gateway.state(id)).toBe('offered'))
    expect(jobOf(await proxied.pull(subscription, { wait }))).toMatchObject({ id, attempt: 1 })
  })
})

for (const name of proxyNames) {
  const isHere = programOf(name) !== undefined
  if (!isHere)
    console.warn(`docs/proxies.md: ${name} is not run, since ${commandOf(name)} is not on the PATH`)

  describe.runIf(isHere)(`behind ${name} as docs/proxies.md configures it`, () => {
    test('a parked pull gets its job, and a held heartbeat hears of a cancel', async () => {
      const proxied = apiOf(await startProxy(name, gateway.url))
      const topic = `held-${name}`
      const pull = proxied.pull(await proxied.subscribe(topic, { leaseSeconds: 3600 }), { wait })
      await gateway.parked(1)
      await gateway.publish(topic)
      const job = jobOf(await pull)
      const before = await gateway.metric('pullgate_heartbeats_total')
      const heartbeat = proxied.request('POST', `/jobs/${job.id}/heartbeat`, {
        json: { lease: job.lease },
        headers: { Prefer: `wait=${wait}` },
      })
      await until(async () => expect(await gateway.metric('pullgate_heartbeats_total')).toBe(before + 1))
      await database.query('select pullgate.cancel($1)', [job.id])
      expect((await heartbeat).body.cancel).toEqual({ reason: 'cancelled' })
    })
    test('a client that gives up is noticed, and the next client gets the job', async () => {
      const proxied = apiOf(await startProxy(name, gateway.url))
      const topic = `gone-${name}`
      const subscription = await proxied.subscribe(topic, { ack: 'auto' })
      await givenUp(proxied, subscription)
      await gateway.parked(0)
      const next = proxied.pull(subscription, { wait })
      await gateway.parked(1)
      const id = await gateway.publish(topic)
      expect(jobOf(await next).id).toBe(id)
    })
    test('a pull with automatic acknowledgement is counted as one through a proxy', async () => {
      const proxied = apiOf(await startProxy(name, gateway.url))
      const topic = `counted-${name}`
      const counted = () => gateway.metric('pullgate_proxied_pulls_total', { ack: 'auto' })
      const before = await counted()
      const subscription = await proxied.subscribe(topic, { ack: 'auto' })
      await gateway.publish(topic)
      jobOf(await proxied.pull(subscription, { wait }))
      expect(await counted()).toBe(before + 1)
    })
    test('a body above the limit is refused by the gateway itself, and one at the limit arrives', async () => {
      const proxied = apiOf(await startProxy(name, gateway.url))
      const ofBytes = (bytes: number) => ({ text: '{}'.padEnd(bytes) })
      const send = (bytes: number) => proxied.request('POST', '/topics/sizes/jobs', ofBytes(bytes))
      expectProblem(await send(bodyMaxBytes), 400, 'invalid-request')
      expectProblem(await send(bodyMaxBytes + 1), 413, 'body-too-large')
    })
    test('connections to the gateway are used again; without a gateway the error is not a problem', async () => {
      const ports = new Set<number | undefined>()
      const origin = createServer((req, res) => {
        if (req.method === 'PATCH') ports.add(req.socket.remotePort)
        res.end()
      })
      onTestFinished(() => void origin.close())
      origin.listen(0, '127.0.0.1')
      await once(origin, 'listening')
      const proxied = apiOf(
        await startProxy(name, `http://127.0.0.1:${(origin.address() as AddressInfo).port}`),
      )
      for (let pull = 0; pull < 10; pull += 1) expect((await proxied.pull('x')).status).toBe(200)
      expect(ports.size).toBeLessThan(10)

      origin.close()
      origin.closeAllConnections()
      const { status, headers } = await proxied.pull('x')
      expect([502, 503, 504]).toContain(status)
      expect(headers.get('retry-after')).toBeNull()
      expect(headers.get('content-type')).not.toBe('application/problem+json')
    })
  })
}

test.runIf(programOf('HAProxy') !== undefined)(
  'behind HAProxy without abortonclose a job is delivered to nobody',
  async () => {
    const without = (snippet: string) => snippet.replace('option abortonclose', 'no option abortonclose')
    const proxied = apiOf(await startProxy('HAProxy', gateway.url, without))
    const subscription = await proxied.subscribe('without', { ack: 'auto' })
    await givenUp(proxied, subscription)
    const job = await gateway.publish('without')
    await until(async () => expect(await gateway.state(job)).toBe('delivered'))
    expect((await proxied.pull(subscription, { wait: 0 })).status).toBe(204)
  },
)
