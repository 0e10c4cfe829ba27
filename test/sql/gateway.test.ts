import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { until } from '../support/http.ts'
import { byLease, publish, readJob, row, rows, runDue, stateOf, subscribe, value } from './jobs.ts'
import type { Held, PublishOptions, Runner } from './jobs.ts'
import { explainedSession } from './plans.ts'

const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})
beforeEach(async () => {
  await session.query('truncate pullgate.job, pullgate.history, pullgate.gateway')
})

let count = 0
const topic = () => `gateway_${++count}`

async function join(): Promise<{ id: number; session: pg.Client; die: () => Promise<void> }> {
  const own = await database.session()
  const id = await value<number>(own, 'select pullgate.join_gateway()')
  return {
    ...{ id, session: own },
    async die() {
      await own.end()
      await until(async () => expect(await unlocked()).toContain(id))
    },
  }
}

async function unlocked(runner: Runner = session): Promise<number[]> {
  const sql = `select unlocked from pullgate.look('{}', '{}', '{}', null, 0, false, true)`
  return value<number[]>(runner, sql)
}

const gateways = async () =>
  (await rows<{ id: number }>(session, 'select id from pullgate.gateway order by id')).map(({ id }) => id)

type Claiming = PublishOptions & { ack?: 'auto' | 'explicit'; ago?: number; claim?: number; lease?: number }

/** A job that the gateway has claimed, some seconds ago. */
async function claimedBy(gateway: number, options: Claiming = {}, runner: Runner = session): Promise<Held> {
  const { ack = 'auto', ago = 3, claim = 0, lease = 60, ...more } = options
  const name = topic()
  const subscription = await subscribe(session, name, { ack, lease })
  await publish(session, name, more)
  const job = await row<Held>(
    runner,
    `select id, lease from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], '{1}', '{}', '{}', $3, $4)`,
    [name, subscription, gateway, claim],
  )
  await rows(
    runner,
    `update pullgate.job set claimed_at = claimed_at - a.ago, lease_ends_at = lease_ends_at - a.ago,
        lease_check_at = lease_check_at - a.ago
      from (select make_interval(secs => $2) as ago) a where id = $1`,
    [job.id, ago],
  )
  return job
}

const bury = (runner: Runner, ...ids: number[]) => value<number>(runner, 'select pullgate.bury($1)', [ids])
const retire = (ids: number[], heir: number, kept: Held[] = []) =>
  value<number>(session, 'select pullgate.retire($1, $2, $3, $4)', [
    ...[ids, heir],
    ...[kept.map(({ id }) => id), kept.map(({ lease }) => lease)],
  ])

describe('the lock of a gateway', () => {
  test('is held as long as its session, and every session has an id of its own', async () => {
    const [first, second] = [await join(), await join()]
    expect(second.id).not.toBe(first.id)
    expect(await unlocked()).toEqual([])
    await first.die()
    expect(await unlocked()).toEqual([first.id])
  })
  test('is there before the row is', async () => {
    const joining = await database.session()
    await joining.query('begin; select pullgate.join_gateway()')
    expect([await gateways(), await unlocked()]).toEqual([[], []])
    await joining.query('commit')
    expect([(await gateways()).length, await unlocked()]).toEqual([1, []])
  })
  test('looks free to all who look at the same time', async () => {
    const dead = await join()
    await dead.die()
    const other = await database.session()
    await other.query('begin')
    expect(await unlocked(other)).toEqual([dead.id])
    expect(await unlocked()).toEqual([dead.id])
    await other.query('commit')
  })
  test('is only looked at when asked for', async () => {
    await (await join()).die()
    const sql = `select unlocked from pullgate.look('{}', '{}', '{}', null, 0, false)`
    expect(await value(session, sql)).toBeNull()
  })
})

describe('a gateway that died', () => {
  test.each([
    ['requeue', 'ready'],
    ['orphan', 'orphaned'],
    ['fail', 'failed'],
  ])('leaves what it had not confirmed in doubt; %s: %s', async (on_lost, state) => {
    const dead = await join()
    const job = await claimedBy(dead.id, { on_lost })
    await dead.die()
    expect(await bury(session, dead.id)).toBe(1)
    expect(await readJob(session, job.id)).toMatchObject({
      ...{ state, attempts: 1 },
      log: [{ outcome: 'in doubt', state }],
    })
    expect(await gateways()).toEqual([])
  })
  test('is not buried while its lock is held', async () => {
    const alive = await join()
    const job = await claimedBy(alive.id)
    expect(await bury(session, alive.id)).toBe(0)
    expect([await stateOf(session, job.id), await gateways()]).toEqual(['running', [alive.id]])
  })
  test('leaves alone what others claimed, explicit leases, and what it had confirmed', async () => {
    const [dead, other] = [await join(), await join()]
    const running = [
      await claimedBy(other.id),
      await claimedBy(0),
      await claimedBy(dead.id, { ack: 'explicit' }),
    ]
    const confirmed = await claimedBy(dead.id, { dedupe_key: 'k' })
    await byLease(session, 'confirm', [confirmed])
    await dead.die()
    expect(await bury(session, dead.id, other.id)).toBe(0)
    for (const { id } of running) expect(await stateOf(session, id)).toBe('running')
    expect(await stateOf(session, confirmed.id)).toBe('delivered')
    expect(await gateways()).toEqual([other.id])
  })
  test('is kept in mind as long as it has claims that are younger than 2 s', async () => {
    const dead = await join()
    const job = await claimedBy(dead.id, { ago: 1 })
    await dead.die()
    expect(await bury(session, dead.id)).toBe(0)
    expect([await stateOf(session, job.id), await gateways()]).toEqual(['running', [dead.id]])
  })
  test('is buried once by two at the same time, the second of which waits', async () => {
    const dead = await join()
    const jobs = [await claimedBy(dead.id), await claimedBy(dead.id, { on_lost: 'orphan' })]
    await dead.die()
    const [one, other] = [await database.session(), await database.session()]
    await one.query('begin')
    expect(await bury(one, dead.id)).toBe(2)
    const second = bury(other, dead.id)
    await waitsForLock(database, other)
    await one.query('commit')
    expect(await second).toBe(0)
    for (const { id } of jobs) expect(await readJob(session, id)).toMatchObject({ attempts: 1 })
  })
  test('does not take back what is confirmed, or claimed again, while that is waited for', async () => {
    const dead = await join()
    const [confirmed, again] = [await claimedBy(dead.id), await claimedBy(dead.id)]
    await dead.die()
    const [one, other] = [await database.session(), await database.session()]
    await one.query('begin')
    await byLease(one, 'confirm', [confirmed])
    await byLease(one, 'give_back', [again])
    await one.query(
      `update pullgate.job set state = 'running', gateway_id = 99, claimed_at = clock_timestamp() where id = $1`,
      [again.id],
    )
    const burying = bury(other, dead.id)
    await waitsForLock(database, other)
    await one.query('commit')
    expect(await burying).toBe(0)
    expect([await stateOf(session, confirmed.id), await stateOf(session, again.id)]).toEqual([
      'delivered',
      'running',
    ])
  })
})

describe('a gateway that lost its session', () => {
  test('keeps what it is writing under its new id, and gives back the rest, no attempt spent', async () => {
    const [old, next] = [await join(), await join()]
    const [held, unheard] = [
      await claimedBy(old.id, { ago: 0 }),
      await claimedBy(old.id, { on_lost: 'orphan' }),
    ]
    const explicit = await claimedBy(old.id, { ack: 'explicit' })
    await old.die()
    expect(await retire([old.id], next.id, [held, { ...explicit, lease: held.lease }])).toBe(1)
    expect(await readJob(session, held.id)).toMatchObject({ state: 'running', gateway_id: next.id })
    expect(await readJob(session, unheard.id)).toMatchObject({ state: 'ready', attempts: 0, deliveries: 0 })
    expect(await stateOf(session, explicit.id)).toBe('running')
    expect(await gateways()).toEqual([next.id])
    expect(await byLease(session, 'confirm', [held])).toBe(1)
  })
  test('has nothing to give back where others took it for dead', async () => {
    const [old, next] = [await join(), await join()]
    const job = await claimedBy(old.id)
    await old.die()
    expect(await bury(session, old.id)).toBe(1)
    expect(await retire([old.id], next.id)).toBe(0)
    expect(await readJob(session, job.id)).toMatchObject({ state: 'ready', attempts: 1 })
  })
})

describe('a claim whose answer came late', () => {
  const refresh = (...jobs: Held[]) =>
    rows<{ lease: string; lease_ends_at: Date }>(session, 'select * from pullgate.refresh_claims($1, $2)', [
      jobs.map(({ id }) => id),
      jobs.map(({ lease }) => lease),
    ])

  test('counts from now on, and is held as long as it would have been', async () => {
    const dead = await join()
    const job = await claimedBy(dead.id, { ago: 8 })
    const [refreshed] = await refresh(job)
    expect(refreshed?.lease).toBe(job.lease)
    const sql = `select round(extract(epoch from clock_timestamp() - claimed_at))::int as ago,
        round(extract(epoch from lease_ends_at - clock_timestamp()))::int as ends,
        lease_check_at = lease_ends_at as looked from pullgate.job where id = $1`
    expect(await row(session, sql, [job.id])).toEqual({ ago: 0, ends: 15, looked: true })
    await dead.die()
    expect(await bury(session, dead.id)).toBe(0)
  })
  test('does not count where it was given back, lost, confirmed, or has another lease', async () => {
    const back = await claimedBy(1)
    const lost = await claimedBy(1, { on_lost: 'orphan' })
    const confirmed = await claimedBy(1)
    const other = await claimedBy(1)
    const still = await claimedBy(1)
    await byLease(session, 'give_back', [back])
    await byLease(session, 'doubt', [lost])
    await byLease(session, 'confirm', [confirmed])
    const leases = await refresh(back, lost, confirmed, { ...other, lease: still.lease }, still)
    expect(leases.map(({ lease }) => lease)).toEqual([still.lease])
  })
})

describe('a claim that was never answered', () => {
  async function unheard(claim: number, seconds: number, ...jobs: Held[]): Promise<number> {
    const sql = 'select subscription_id from pullgate.job where id = any ($1)'
    const found = await rows<{ subscription_id: string }>(session, sql, [jobs.map(({ id }) => id)])
    return value<number>(session, 'select pullgate.give_back_unheard($1, $2, $3)', [
      ...[[claim], found.map((each) => each.subscription_id), seconds],
    ])
  }

  test.each([
    { ack: 'auto', lease: 60 },
    { ack: 'explicit', lease: 60 },
    { ack: 'explicit', lease: 43_200 },
  ] as const)('is given back, no attempt spent: $ack, $lease s', async ({ ack, lease }) => {
    const [job, answered] = [
      await claimedBy(1, { ack, lease, claim: 7 }),
      await claimedBy(1, { ack, lease, claim: 8 }),
    ]
    expect(await unheard(7, 5, job, answered)).toBe(1)
    expect(await readJob(session, job.id)).toMatchObject({ state: 'ready', attempts: 0, deliveries: 0 })
    expect(await stateOf(session, answered.id)).toBe('running')
    expect(await unheard(7, 5, job)).toBe(0)
  })
  test('is found when it commits after it was looked for', async () => {
    const late = await database.session()
    await late.query('begin')
    const job = await claimedBy(1, { ack: 'explicit', claim: 7, ago: 0 }, late)
    const [subscription] = await rows<{ id: string }>(
      session,
      'select id from pullgate.subscription order by created_at desc limit 1',
    )
    const look = () =>
      value<number>(session, 'select pullgate.give_back_unheard($1, $2, 60)', [[7], [subscription?.id]])
    expect(await look()).toBe(0)
    await late.query('commit')
    expect(await look()).toBe(1)
    expect(await stateOf(session, job.id)).toBe('ready')
  })
  test('is left alone once its job was claimed again, or its lease has ended', async () => {
    const [again, ended] = [
      await claimedBy(1, { claim: 7 }),
      await claimedBy(1, { claim: 7, ago: 16, on_lost: 'orphan' }),
    ]
    await rows(session, 'update pullgate.job set claim_id = 8 where id = $1', [again.id])
    await runDue(session)
    expect(await unheard(7, 30, again, ended)).toBe(0)
    expect([await stateOf(session, again.id), await stateOf(session, ended.id)]).toEqual([
      'running',
      'orphaned',
    ])
  })
})

test('nothing here scans the job table, or all that is held', async () => {
  const { session: explained, plans } = await explainedSession(database)
  const dead = await join()
  const job = await claimedBy(dead.id, { claim: 7 })
  await dead.die()
  await rows(explained, 'select pullgate.refresh_claims($1, $2)', [[job.id], [job.lease]])
  await rows(explained, 'select pullgate.give_back_unheard($1, $2, 5)', [[8], []])
  await rows(explained, 'select pullgate.retire($1, 0, $2, $3)', [[dead.id], [job.id], [job.lease]])
  await rows(explained, 'select pullgate.bury($1)', [[dead.id]])
  const about = (text: string) => plans.filter((plan) => plan.includes(text)).join('\n')
  expect(about('j.claimed_at <= p_before')).toMatch(/Scan (using|on) job_unconfirmed/)
  expect(about('j.claimed_at <= p_before')).toMatch(/LockRows.*\n\s+->\s+Sort/)
  expect(about('delete from pullgate.gateway')).toMatch(/Scan (using|on) job_unconfirmed/)
  expect(about('v_found :=')).toMatch(/Scan (using|on) job_lease_check/)
  for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (pullgate\.)?job\b/)
})
