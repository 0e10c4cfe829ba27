import { expect, test } from 'vitest'
import { publish, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, holdClaims } from '../support/gateway.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import type { Answer } from '../support/http.ts'

// The server is there, but something is wrong: parked pulls stay, everything else is told to come again.

const database = useDatabase()

function expectComeAgain(answer: Answer): void {
  expectProblem(answer, 503, 'database-unavailable')
  expect(answer.headers.get('retry-after')).toMatch(/^[1-9]$/)
}

test('when every session is terminated, again and again, nothing parked is lost', async () => {
  const gateway = await gatewayFor(database)
  const subscription = await gateway.subscribe('terminated')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  for (let n = 0; n < 5; n += 1) {
    const lost = await gateway.metric('pullgate_listener_losses_total')
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`,
    )
    await until(async () => expect(await gateway.metric('pullgate_listener_losses_total')).toBe(lost + 1))
    await until(async () => expect(await gateway.metric('pullgate_listener_connected')).toBe(1))
    expect((await gateway.request('GET', '/topics/terminated')).status).toBe(200)
  }
  const id = await publish(database, 'terminated')
  expect(jobOf(await parked).id).toBe(id)
})

test('when no connection of the pool gets free, what waits for one is told to come again', async () => {
  const gateway = await gatewayFor(database, { PULLGATE_POOL_MAX: 2 })
  const subscription = await gateway.subscribe('exhausted')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const release = await holdClaims(database)
  const publishing = Array.from({ length: 6 }, () =>
    gateway.request('POST', '/topics/exhausted/jobs', { json: { jobSpec: 1 } }),
  )
  await until(async () => expect(await gateway.metric('pullgate_db_pool_waiting')).toBeGreaterThan(3))
  expectComeAgain(await gateway.request('GET', '/jobs/1'))
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  await release()
  const statuses = (await Promise.all(publishing)).map(({ status }) => status)
  expect(new Set(statuses)).toEqual(new Set([201, 503]))
  jobOf(await parked)
  // One that was answered 503 for want of a connection was not carried out.
  const jobs = await database.value(`select count(*)::integer from pullgate.jobs where topic = 'exhausted'`)
  expect(jobs).toBe(statuses.filter((status) => status === 201).length)
})

test('a claim that waits for a lock ends by the time-out of statements: one try is refused, the parked stay', async () => {
  const gateway = await gatewayFor(database, { PULLGATE_STATEMENT_TIMEOUT_MS: 300 })
  const subscription = await gateway.subscribe('locked')
  await database.query(`select pullgate.publish('locked', '0'::text, delay => '1 day')`)
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  const release = await holdClaims(database)
  expectComeAgain(await gateway.pull(subscription, { wait: 0 }))
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  expect(await gateway.metric('pullgate_db_errors_total', { class: '57' })).toBeGreaterThan(0)
  await release()
  const id = await publish(database, 'locked')
  expect(jobOf(await parked).id).toBe(id)
})

test('a settle of a job that somebody else has locked is told to come again, and then counts', async () => {
  const gateway = await gatewayFor(database, { PULLGATE_STATEMENT_TIMEOUT_MS: 300 })
  const subscription = await gateway.subscribe('row-locked')
  const id = await publish(database, 'row-locked')
  const job = jobOf(await gateway.pull(subscription, { wait: 50 }))
  const session = await database.session()
  await session.query('begin')
  await session.query('select from pullgate.job where id = $1 for update', [id])
  expectComeAgain(await gateway.settle(job, 'complete'))
  await session.query('rollback')
  expect((await gateway.settle(job, 'complete')).status).toBe(200)
  expect(await stateOf(database, id)).toBe('succeeded')
})

test('while the disk is full nothing is handed out or taken, and reads go on', async () => {
  const gateway = await gatewayFor(database)
  const subscription = await gateway.subscribe('full')
  const parked = gateway.pull(subscription, { wait: 50 })
  await gateway.parked(1, subscription)
  await database.query(`
    create function public.disk_full() returns trigger language plpgsql as $$
      begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
    create trigger disk_full before insert or update or delete on pullgate.job
      for each statement execute function public.disk_full()`)
  expectComeAgain(await gateway.request('POST', '/topics/full/jobs', { json: { jobSpec: 1 } }))
  expect((await gateway.request('GET', '/topics/full')).status).toBe(200)
  expect((await gateway.request('GET', '/livez')).status).toBe(200)
  // One that is ready is not handed out: its claim fails.
  await database.query('alter table pullgate.job disable trigger disk_full')
  const session = await database.session()
  await session.query('begin; set local pullgate.notify = off')
  const id = await publish(session, 'full')
  await session.query('alter table pullgate.job enable trigger disk_full')
  await session.query('commit')
  await until(async () =>
    expect(await gateway.metric('pullgate_db_errors_total', { class: '53' })).toBeGreaterThan(1),
  )
  expect(await gateway.metric('pullgate_pulls_parked')).toBe(1)
  expectComeAgain(await gateway.pull(subscription, { wait: 0 }))
  await database.query('drop function public.disk_full cascade')
  expect(jobOf(await parked)).toMatchObject({ id, attempt: 1 })
})

test('what the database refuses leaves its connection in the pool', async () => {
  const gateway = await gatewayFor(database)
  const pids = () =>
    database.query(
      `select pid from pg_stat_activity where datname = current_database() and application_name like 'pullgate%'`,
    )
  await gateway.publish('refused')
  const before = (await pids()).map(({ pid }) => pid)
  for (let n = 0; n < 5; n += 1) {
    expectProblem(await gateway.request('POST', '/jobs/999999/cancel'), 404, 'job-not-found')
  }
  expect((await pids()).map(({ pid }) => pid)).toEqual(expect.arrayContaining(before))
})

test('data that cannot be handed out is never the mistake of the pull that asked: 500', async () => {
  const gateway = await gatewayFor(database)
  const subscription = await gateway.subscribe('unreadable')
  // A code that is the client's mistake in a publish, and is of no row: the job is not set aside.
  await database.query(`
    create function public.unreadable() returns trigger language plpgsql as $$
      begin raise exception 'bad option' using errcode = 'PL005'; end $$;
    create trigger unreadable before update on pullgate.job
      for each row when (new.state = 'running') execute function public.unreadable()`)
  await publish(database, 'unreadable')
  expectProblem(await gateway.pull(subscription, { wait: 0 }), 500, 'internal')
  await database.query('drop function public.unreadable cascade')
  jobOf(await gateway.pull(subscription, { wait: 10 }))
})
