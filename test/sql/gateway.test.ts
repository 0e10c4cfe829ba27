import type pg from 'pg'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { until } from '../support/http.ts'
import { claimedBy } from './claimed.ts'
import { byLease, readJob, rows, stateOf, value } from './jobs.ts'
import type { Held, Runner } from './jobs.ts'
import { explainedSession } from './plans.ts'

const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})
beforeEach(async () => {
  await session.query('truncate pullgate.job, pullgate.history, pullgate.gateway')
})

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
    const job = await claimedBy(session, dead.id, { on_lost })
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
    const job = await claimedBy(session, alive.id)
    expect(await bury(session, alive.id)).toBe(0)
    expect([await stateOf(session, job.id), await gateways()]).toEqual(['running', [alive.id]])
  })
  test('leaves alone what others claimed, explicit leases, and what it had confirmed', async () => {
    const [dead, other] = [await join(), await join()]
    const running = [
      await claimedBy(session, other.id),
      await claimedBy(session, 0),
      await claimedBy(session, dead.id, { ack: 'explicit' }),
    ]
    const confirmed = await claimedBy(session, dead.id, { dedupe_key: 'k' })
    await byLease(session, 'confirm', [confirmed])
    await dead.die()
    expect(await bury(session, dead.id, other.id)).toBe(0)
    for (const { id } of running) expect(await stateOf(session, id)).toBe('running')
    expect(await stateOf(session, confirmed.id)).toBe('delivered')
    expect(await gateways()).toEqual([other.id])
  })
  test('is kept in mind as long as it has claims that are younger than 2 s', async () => {
    const dead = await join()
    const job = await claimedBy(session, dead.id, { ago: 1 })
    await dead.die()
    expect(await bury(session, dead.id)).toBe(0)
    expect([await stateOf(session, job.id), await gateways()]).toEqual(['running', [dead.id]])
  })
  test('is buried once by two at the same time, the second of which waits', async () => {
    const dead = await join()
    const jobs = [await claimedBy(session, dead.id), await claimedBy(session, dead.id, { on_lost: 'orphan' })]
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
    const [confirmed, again] = [await claimedBy(session, dead.id), await claimedBy(session, dead.id)]
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
      await claimedBy(session, old.id, { ago: 0 }),
      await claimedBy(session, old.id, { on_lost: 'orphan' }),
    ]
    const explicit = await claimedBy(session, old.id, { ack: 'explicit' })
    await old.die()
    expect(await retire([old.id], next.id, [held, { ...unheard, lease: held.lease }])).toBe(1)
    expect(await readJob(session, held.id)).toMatchObject({ state: 'running', gateway_id: next.id })
    expect(await readJob(session, unheard.id)).toMatchObject({ state: 'ready', attempts: 0, deliveries: 0 })
    expect(await stateOf(session, explicit.id)).toBe('running')
    expect(await gateways()).toEqual([next.id])
    expect(await byLease(session, 'confirm', [held])).toBe(1)
  })
  test('has nothing to give back where others took it for dead', async () => {
    const [old, next] = [await join(), await join()]
    const job = await claimedBy(session, old.id)
    await old.die()
    expect(await bury(session, old.id)).toBe(1)
    expect(await retire([old.id], next.id)).toBe(0)
    expect(await readJob(session, job.id)).toMatchObject({ state: 'ready', attempts: 1 })
  })
})

test('nothing here scans the job table, or all that is held', async () => {
  const { session: explained, plans } = await explainedSession(database)
  const dead = await join()
  const job = await claimedBy(session, dead.id, {})
  await dead.die()
  await rows(explained, 'select pullgate.retire($1, 0, $2, $3)', [[dead.id], [job.id], [job.lease]])
  await rows(explained, 'select pullgate.bury($1)', [[dead.id]])
  const about = (text: string) => plans.filter((plan) => plan.includes(text)).join('\n')
  expect(about('j.claimed_at <= p_before')).toMatch(/Scan (using|on) job_unconfirmed/)
  expect(about('j.claimed_at <= p_before')).toMatch(/LockRows.*\n\s+->\s+Sort/)
  expect(about('delete from pullgate.gateway')).toMatch(/Scan (using|on) job_unconfirmed/)
  for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (pullgate\.)?job\b/)
})
