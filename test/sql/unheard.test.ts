import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase, waitsForLock } from '../support/database.ts'
import { claimedBy, claimUnder } from './claimed.ts'
import { byLease, publish, readJob, row, rows, runDue, stateOf, subscribe, value } from './jobs.ts'
import type { Held } from './jobs.ts'
import { explainedSession } from './plans.ts'

const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})

describe('a claim whose answer came late', () => {
  const refresh = (...jobs: Held[]) =>
    rows<{ lease: string; lease_ends_at: Date }>(session, 'select * from pullgate.refresh_claims($1, $2)', [
      jobs.map(({ id }) => id),
      jobs.map(({ lease }) => lease),
    ])

  test('counts from now on, and is held as long as it would have been', async () => {
    const job = await claimedBy(session, 1, { ago: 8 })
    const [refreshed] = await refresh(job)
    expect(refreshed?.lease).toBe(job.lease)
    const sql = `select 5 * floor(extract(epoch from clock_timestamp() - claimed_at) / 5)::int as ago,
        5 * ceil(extract(epoch from lease_ends_at - clock_timestamp()) / 5)::int as ends,
        lease_check_at = lease_ends_at as looked from pullgate.job where id = $1`
    expect(await row(session, sql, [job.id])).toEqual({ ago: 0, ends: 15, looked: true })
  })
  test('does not count where it was given back, lost, confirmed, or has another lease', async () => {
    const back = await claimedBy(session, 1)
    const lost = await claimedBy(session, 1, { on_lost: 'orphan' })
    const confirmed = await claimedBy(session, 1)
    const other = await claimedBy(session, 1)
    const still = await claimedBy(session, 1)
    await byLease(session, 'give_back', [back])
    await byLease(session, 'doubt', [lost])
    await byLease(session, 'confirm', [confirmed])
    const leases = await refresh(back, lost, confirmed, { ...other, lease: still.lease }, still)
    expect(leases.map(({ lease }) => lease)).toEqual([still.lease])
  })
})

describe('a claim that was never answered', () => {
  async function unheard(claim: number, seconds: number, jobs: Held[], runner = session): Promise<number> {
    const sql = 'select subscription_id from pullgate.job where id = any ($1)'
    const found = await rows<{ subscription_id: string }>(session, sql, [jobs.map(({ id }) => id)])
    return value<number>(runner, 'select pullgate.give_back_unheard($1, $2, $3)', [
      ...[[claim], found.map((each) => each.subscription_id), seconds],
    ])
  }

  test.each([
    { ack: 'auto', lease: 60 },
    { ack: 'explicit', lease: 60 },
    { ack: 'explicit', lease: 43_200 },
  ] as const)('is given back, no attempt spent: $ack, $lease s', async ({ ack, lease }) => {
    const [job, answered] = [
      await claimedBy(session, 1, { ack, lease, claim: 7 }),
      await claimedBy(session, 1, { ack, lease, claim: 8 }),
    ]
    expect(await unheard(7, 5, [job, answered])).toBe(1)
    expect(await readJob(session, job.id)).toMatchObject({ state: 'ready', attempts: 0, deliveries: 0 })
    expect(await stateOf(session, answered.id)).toBe('running')
    expect(await unheard(7, 5, [job])).toBe(0)
  })
  test('is found when it commits after it was looked for', async () => {
    const subscription = await subscribe(session, 'late')
    const id = await publish(session, 'late')
    const late = await database.session()
    await late.query('begin')
    await claimUnder(late, 1, { topic: 'late', subscription, claim: 7 })
    const look = () =>
      value<number>(session, 'select pullgate.give_back_unheard($1, $2, 60)', [[7], [subscription]])
    expect(await look()).toBe(0)
    await late.query('commit')
    expect(await look()).toBe(1)
    expect(await stateOf(session, id)).toBe('ready')
  })
  test('is left alone when its job is claimed again while that is waited for', async () => {
    const job = await claimedBy(session, 1, { claim: 7 })
    const [one, other] = [await database.session(), await database.session()]
    await one.query('begin')
    await one.query('update pullgate.job set claim_id = 8 where id = $1', [job.id])
    const looking = unheard(7, 5, [job], other)
    await waitsForLock(database, other)
    await one.query('commit')
    expect([await looking, await stateOf(session, job.id)]).toEqual([0, 'running'])
  })
  test('is left alone once its job was claimed again, or its lease has ended', async () => {
    const [again, ended] = [
      await claimedBy(session, 1, { claim: 7 }),
      await claimedBy(session, 1, { claim: 7, ago: 16, on_lost: 'orphan' }),
    ]
    await rows(session, 'update pullgate.job set claim_id = 8 where id = $1', [again.id])
    await runDue(session)
    expect(await unheard(7, 30, [again, ended])).toBe(0)
    expect([await stateOf(session, again.id), await stateOf(session, ended.id)]).toEqual([
      'running',
      'orphaned',
    ])
  })
})

test('nothing here scans the job table', async () => {
  const { session: explained, plans } = await explainedSession(database)
  const job = await claimedBy(session, 1, { claim: 7 })
  await rows(explained, 'select pullgate.refresh_claims($1, $2)', [[job.id], [job.lease]])
  await rows(explained, 'select pullgate.give_back_unheard($1, $2, 5)', [[7], []])
  const found = plans.filter((plan) => plan.includes('v_found :=')).join('\n')
  expect(found).toMatch(/Scan (using|on) job_lease_check/)
  for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (pullgate\.)?job\b/)
  expect(await stateOf(session, job.id)).toBe('ready')
})
