import { expect, test } from 'vitest'
import { endLease, publish, readJob, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { claimUnderWay, gatewayFor, noBackstop, useGateway } from '../support/gateway.ts'
import { openRaw } from '../support/http-raw.ts'
import { jobOf, until } from '../support/http.ts'
import { startGatewayProcess } from '../support/process.ts'

const database = useDatabase()
const gateway = useGateway(database, noBackstop)

async function reached(id: string, state: string): Promise<void> {
  await until(async () => expect(await stateOf(database, id)).toBe(state))
}

const outcomes = async () => ({
  confirmed: await gateway.metric('pullgate_deliveries_total', { outcome: 'confirmed' }),
  undelivered: await gateway.metric('pullgate_deliveries_total', { outcome: 'undelivered' }),
  inDoubt: await gateway.metric('pullgate_deliveries_total', { outcome: 'in_doubt' }),
})

for (const ack of ['explicit', 'auto'] as const) {
  test(`${ack} ack: a client that resets while its claim is under way spends no attempt`, async () => {
    const topic = `reset-before-${ack}`
    const subscription = await gateway.subscribe(topic, { ack })
    const client = await openRaw(gateway.url)
    client.pull(subscription, '?wait=50')
    await gateway.parked(1, subscription)
    const { id, release } = await claimUnderWay(database, topic)
    client.reset()
    await gateway.parked(0)
    const { undelivered } = await outcomes()
    await release()
    await until(async () => expect((await outcomes()).undelivered).toBe(undelivered + 1))
    expect(await readJob(database, id)).toMatchObject({ state: 'ready', attempts: 0, deliveries: 0 })
    const next = jobOf(await gateway.pull(await gateway.subscribe(topic), { wait: 50 }))
    expect(next).toMatchObject({ id, attempt: 1 })
    expect(next.redelivered).toBeUndefined()
  })
}

test('explicit ack: after a reset amid the answer jobs are ready again, no attempt spent, unless on_lost forbids', async () => {
  const topic = 'reset-amid'
  const subscription = await gateway.subscribe(topic)
  // More than the socket buffers of both sides hold.
  const spec = JSON.stringify('x'.repeat(1_000_000))
  const options = ['requeue', 'orphan', 'fail'].flatMap((on_lost) => Array<string>(4).fill(on_lost))
  const ids = await Promise.all(options.map((on_lost) => publish(database, topic, { spec, on_lost })))
  const client = await openRaw(gateway.url, { reading: false })
  client.pull(subscription, '?max=12&wait=50')
  await client.answered()
  client.reset()
  const after = { requeue: 'ready', orphan: 'orphaned', fail: 'failed' }
  for (const [index, on_lost] of options.entries()) {
    await reached(ids[index] ?? '', after[on_lost as keyof typeof after])
  }
  for (const id of ids.slice(0, 4)) {
    expect(await readJob(database, id)).toMatchObject({ attempts: 0, deliveries: 0, lease: null })
  }
})

test('auto ack: a reset amid the answer leaves doubt, and on_lost decides', async () => {
  const topic = 'doubt-amid'
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  const spec = JSON.stringify('x'.repeat(1_000_000))
  const options = ['requeue', 'orphan', 'fail'].flatMap((on_lost) => Array<string>(4).fill(on_lost))
  const ids = await Promise.all(options.map((on_lost) => publish(database, topic, { spec, on_lost })))
  const client = await openRaw(gateway.url, { reading: false })
  client.pull(subscription, '?max=12&wait=50')
  await client.answered()
  client.reset()
  const after = { requeue: 'ready', orphan: 'orphaned', fail: 'failed' }
  for (const [index, on_lost] of options.entries()) {
    await reached(ids[index] ?? '', after[on_lost as keyof typeof after])
  }
  const job = await gateway.job(ids[0] ?? '')
  expect(job.history).toMatchObject([{ outcome: 'in doubt', attempt: 1, state: 'ready' }])
  // Only what is to be requeued is handed out again.
  const again = await gateway.pull(await gateway.subscribe(topic), { max: 12, wait: 0 })
  expect((again.body.jobs as { id: string }[]).map(({ id }) => id).sort()).toEqual(ids.slice(0, 4).sort())
})

for (const [on_lost, state] of [
  ['requeue', 'ready'],
  ['orphan', 'orphaned'],
  ['fail', 'failed'],
] as const) {
  test(`auto ack: a reset before the answer was read leaves doubt; ${on_lost}: ${state}`, async () => {
    const topic = `unread-${on_lost}`
    const subscription = await gateway.subscribe(topic, { ack: 'auto' })
    const client = await openRaw(gateway.url, { reading: false })
    client.pull(subscription, '?wait=50')
    await gateway.parked(1)
    const { inDoubt, confirmed } = await outcomes()
    const id = await publish(database, topic, { on_lost })
    await client.answered()
    client.reset()
    await reached(id, state)
    expect(await outcomes()).toMatchObject({ inDoubt: inDoubt + 1, confirmed })
    expect((await gateway.job(id)).history).toMatchObject([{ outcome: 'in doubt', state }])
    const again = await gateway.pull(await gateway.subscribe(topic), { wait: 0 })
    expect(again.status).toBe(on_lost === 'requeue' ? 200 : 204)
    if (on_lost === 'requeue') expect(jobOf(again)).toMatchObject({ id, attempt: 2, redelivered: true })
  })
}

test('a client that vanished while parked is passed over', async () => {
  const topic = 'vanished'
  const subscription = await gateway.subscribe(topic)
  const client = await openRaw(gateway.url)
  client.pull(subscription, '?wait=50')
  await gateway.parked(1)
  const alive = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(2, subscription)
  client.socket.destroy()
  await gateway.parked(1)
  const id = await publish(database, topic)
  expect(jobOf(await alive)).toMatchObject({ id, attempt: 1 })
})

test('the job of a client that vanished during the claim goes to the next in line', async () => {
  const topic = 'next-in-line'
  const subscription = await gateway.subscribe(topic)
  const client = await openRaw(gateway.url)
  client.pull(subscription, '?wait=50')
  await gateway.parked(1, subscription)
  const { id, release } = await claimUnderWay(database, topic)
  const alive = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(2)
  client.reset()
  await gateway.parked(1)
  const { undelivered } = await outcomes()
  await release()
  expect(jobOf(await alive)).toMatchObject({ id, attempt: 1 })
  expect((await outcomes()).undelivered).toBe(undelivered)
})

test('auto ack: a client that closed before the answer was written has not got the job', async () => {
  const topic = 'closed-before'
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  const client = await openRaw(gateway.url)
  client.pull(subscription, '?wait=50')
  await gateway.parked(1, subscription)
  const { id, release } = await claimUnderWay(database, topic)
  const released = release()
  // Client and gateway share this thread: while it stands still, the claim's reply comes, then the client's FIN.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
  client.socket.destroy()
  await released
  await gateway.parked(0)
  await reached(id, 'ready')
  expect(await readJob(database, id)).toMatchObject({ attempts: 0, deliveries: 0 })
})

test('auto ack: delivered once the answer has been read for a while, or the client has left in order', async () => {
  const topic = 'auto'
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  const [kept, ended] = [await openRaw(gateway.url), await openRaw(gateway.url)]
  for (const [client, leave] of [
    [ended, () => void ended.socket.end()],
    [kept, () => undefined],
  ] as const) {
    client.pull(subscription, '?wait=50')
    await gateway.parked(1)
    const id = await publish(database, topic)
    await client.until(/"jobSpec":.*"publishedAt":"[^"]+"}$/)
    leave()
    await reached(id, 'delivered')
    expect(await gateway.job(id)).toMatchObject({ attempts: 1, deliveries: 1, history: [] })
  }
  expect(kept.received).not.toContain('"lease"')
})

test('auto ack: the next request on a connection confirms what the one before it brought', async () => {
  const topic = 'same-connection'
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  const client = await openRaw(gateway.url)
  const ids = [await publish(database, topic), await publish(database, topic)]
  client.pull(subscription)
  await client.until(/"jobSpec"/)
  client.pull(subscription)
  await client.until(/"jobSpec"[^]*"jobSpec"/)
  // Three requests, two jobs, two proofs: the reset comes too late to raise a doubt.
  client.pull(subscription, '?wait=50')
  await gateway.parked(1)
  client.reset()
  for (const id of ids) await reached(id, 'delivered')
})

test('a pipelined request gets no job before it is at the head', async () => {
  const topic = 'pipelined'
  const subscription = await gateway.subscribe(topic)
  const [empty, client] = [await gateway.subscribe('pipelined-empty'), await openRaw(gateway.url)]
  await publish(database, topic)
  client.pull(empty, '?wait=50')
  client.pull(subscription, '?wait=50')
  await gateway.parked(1)
  const other = jobOf(await gateway.pull(subscription, { wait: 0 }))
  const first = await publish(database, 'pipelined-empty')
  await client.until(new RegExp(`"id":"${first}"`))
  await gateway.parked(1)
  const second = await publish(database, topic)
  await client.until(new RegExp(`"id":"${first}"[^]*"id":"${second}"`))
  expect(other.id).not.toBe(second)
})

test('auto ack: pipelined pulls are each confirmed', async () => {
  const topic = 'pipelined-auto'
  const subscription = await gateway.subscribe(topic, { ack: 'auto' })
  const client = await openRaw(gateway.url)
  const ids = [await publish(database, topic), await publish(database, topic)]
  client.pull(subscription)
  client.pull(subscription)
  await client.until(/"jobSpec"[^]*"jobSpec"/)
  for (const id of ids) await reached(id, 'delivered')
})

test('a killed gateway leaves its unconfirmed jobs to the end of their short lease, and on_lost decides', async () => {
  const doomed = await startGatewayProcess(database, noBackstop)
  const heir = await gatewayFor(database, { PULLGATE_BACKSTOP_MS: 100 })
  const topic = 'killed'
  const subscription = await doomed.subscribe(topic, { ack: 'auto' })
  const ids = []
  for (const on_lost of ['requeue', 'orphan', 'fail']) ids.push(await publish(database, topic, { on_lost }))
  const client = await openRaw(doomed.url)
  client.pull(subscription, '?max=3&wait=50')
  await client.until(/"more":/)
  doomed.signal('SIGKILL')
  await doomed.exited
  for (const id of ids) {
    const [lease] = await database.query<{ seconds: number }>(
      `select extract(epoch from lease_ends_at - claimed_at)::float8 as seconds from pullgate.job where id = $1`,
      [id],
    )
    expect(lease?.seconds).toBe(15)
    await endLease(database, id)
  }
  const next = await heir.pull(await heir.subscribe(topic), { wait: 50 })
  expect(jobOf(next)).toMatchObject({ id: ids[0], attempt: 2, redelivered: true })
  await reached(ids[1] ?? '', 'orphaned')
  await reached(ids[2] ?? '', 'failed')
})
