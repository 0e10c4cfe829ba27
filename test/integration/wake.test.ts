import { expect, onTestFinished, test } from 'vitest'
import { endLease, publish, stateOf } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { claimsHeld, gatewayFor, holdClaims, noBackstop, quiet, useGateway } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'
import type { Answer, Job } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database, noBackstop)
let topics = 0

/** A pull parked on a fresh topic: no claim is under way, so what happens next has to wake it. */
async function parkedPull(on: TestGateway = gateway, wait = 50) {
  const topic = `wake-${(topics += 1)}`
  const subscription = await on.subscribe(topic)
  let answered = false
  const answer = on.pull(subscription, { wait }).finally(() => (answered = true))
  await on.parked(1, subscription)
  return { topic, subscription, answer, answered: () => answered }
}

function claimed(topic: string, cause: string, on: TestGateway = gateway): Promise<number> {
  return on.metric('pullgate_claimed_jobs_total', { topic, cause })
}

/** A job that an executor holds, and another pull parked on its topic. */
async function heldJob(on = gateway): Promise<{ job: Job; topic: string; answer: Promise<Answer> }> {
  const { topic, subscription, answer } = await parkedPull(on)
  await publish(database, topic)
  const job = jobOf(await answer)
  const next = on.pull(subscription, { wait: 50 })
  await on.parked(1, subscription)
  return { job, topic, answer: next }
}

test('a parked pull is woken by notification when a job commits', async () => {
  const { topic, answer } = await parkedPull()
  const id = await publish(database, topic)
  expect(jobOf(await answer)).toMatchObject({ id, attempt: 1 })
  expect(await claimed(topic, 'notification')).toBe(1)
  expect(await claimed(topic, 'backstop')).toBe(0)
})

test('a job of a long transaction is delivered when that commits, one of a rolled-back wakes nobody', async () => {
  const { topic, subscription, answer, answered } = await parkedPull()
  const [rolledBack, committed] = await Promise.all([database.session(), database.session()])
  await rolledBack.query('begin')
  await committed.query('begin')
  const lost = await publish(rolledBack, topic)
  const id = await publish(committed, topic)
  const heard = await gateway.metric('pullgate_notifications_total')
  await rolledBack.query('rollback')
  // Another notification comes after any that the rollback could have sent.
  await database.query('select pullgate.wake($1)', [`${topic}-other`])
  await until(async () => expect(await gateway.metric('pullgate_notifications_total')).toBe(heard + 1))
  expect((await gateway.pull(subscription, { wait: 0 })).status).toBe(204)
  expect(answered()).toBe(false)
  await committed.query('commit')
  expect(jobOf(await answer).id).toBe(id)
  expect(await claimed(topic, 'notification')).toBe(1)
  expectProblem(await gateway.request('GET', `/jobs/${lost}`), 404, 'job-not-found')
})

test('one notification of publish_many wakes as many pulls as there are jobs', async () => {
  const { topic, subscription, answer } = await parkedPull()
  const others = [gateway.pull(subscription, { wait: 50 }), gateway.pull(subscription, { wait: 50 })]
  await gateway.parked(3, subscription)
  const heard = await gateway.metric('pullgate_notifications_total')
  await database.query('select pullgate.publish_many($1, $2::text[])', [topic, ['1', '2', '3']])
  const answers = await Promise.all([answer, ...others])
  expect(answers.map((one) => jobOf(one).jobSpec).sort()).toEqual([1, 2, 3])
  expect(await gateway.metric('pullgate_notifications_total')).toBe(heard + 1)
})

test('a release wakes a parked pull, and costs no attempt', async () => {
  const { job, topic, answer } = await heldJob()
  await gateway.settle(job, 'release')
  expect(jobOf(await answer)).toMatchObject({ id: job.id, attempt: 1, redelivered: true })
  expect(await claimed(topic, 'notification')).toBe(2)
})

test('a failed attempt wakes a parked pull when its pause is over', async () => {
  const { job, topic, answer } = await heldJob()
  const failed = await gateway.settle(job, 'fail', { error: 'broke', retryAfterSeconds: 0.3 })
  expect(failed.body).toMatchObject({ state: 'scheduled' })
  expect(jobOf(await answer)).toMatchObject({ id: job.id, attempt: 2 })
  expect(await claimed(topic, 'backstop')).toBe(0)
})

test('a retry wakes a parked pull', async () => {
  const { job, answer } = await heldJob()
  expect((await gateway.settle(job, 'fail', { error: 'broke', retry: false })).body.state).toBe('failed')
  expect((await gateway.request('POST', `/jobs/${job.id}/retry`)).body).toEqual({ state: 'ready' })
  expect(jobOf(await answer)).toMatchObject({ id: job.id, attempt: 1 })
})

test('a delayed job wakes a parked pull when it is due, not before', async () => {
  const { topic, answer } = await parkedPull()
  const id = await publish(database, topic, { delay: '0.4 seconds' })
  expect(jobOf(await answer).id).toBe(id)
  const early = 'select claimed_at < due_at from pullgate.job where id = $1'
  expect(await database.value(early, [id])).toBe(false)
  expect((await claimed(topic, 'due')) + (await claimed(topic, 'notification'))).toBe(1)
})

test('a resumed topic wakes a parked pull', async () => {
  const { topic, subscription, answer, answered } = await parkedPull()
  await database.query('select pullgate.configure_topic($1, paused => true)', [topic])
  const id = await publish(database, topic)
  expect((await gateway.pull(subscription, { wait: 0 })).status).toBe(204)
  expect(answered()).toBe(false)
  await database.query('select pullgate.configure_topic($1, paused => false)', [topic])
  expect(jobOf(await answer).id).toBe(id)
})

test('an ended lease wakes a parked pull', async () => {
  const own = await gatewayFor(database, { PULLGATE_BACKSTOP_MS: 100 })
  const { topic, subscription, answer } = await parkedPull(own)
  await publish(database, topic)
  const job = jobOf(await answer)
  const next = own.pull(subscription, { wait: 50 })
  await own.parked(1, subscription)
  await endLease(database, job.id)
  expect(jobOf(await next)).toMatchObject({ id: job.id, attempt: 2, redelivered: true })
  expect(await own.metric('pullgate_leases_lost_total', { state: 'ready' })).toBe(1)
  expect(await claimed(topic, 'backstop', own)).toBe(0)
})

test('with notifications off the backstop delivers, and is counted', async () => {
  const own = await gatewayFor(database, { PULLGATE_BACKSTOP_MS: 100 })
  const { topic, subscription, answer } = await parkedPull(own)
  await quiet(own, subscription)
  const session = await database.session()
  await session.query(`begin; set local pullgate.notify = off`)
  const id = await publish(session, topic)
  await session.query('commit')
  expect(jobOf(await answer).id).toBe(id)
  expect(await claimed(topic, 'backstop', own)).toBe(1)
  expect(await claimed(topic, 'notification', own)).toBe(0)
})

test('a silent publish is delivered by pullgate.wake', async () => {
  const { topic, subscription, answer } = await parkedPull()
  await quiet(gateway, subscription)
  const session = await database.session()
  await session.query(`begin; set local pullgate.notify = off`)
  await publish(session, topic)
  await session.query('commit')
  await database.query('select pullgate.wake($1)', [topic])
  jobOf(await answer)
  expect(await claimed(topic, 'notification')).toBe(1)
})

test('the end of a subscription answers its parked pulls 410 on every gateway, and later ones', async () => {
  const other = await gatewayFor(database, noBackstop)
  const { topic, subscription, answer } = await parkedPull()
  const elsewhere = other.pull(subscription, { wait: 50 })
  const neighbour = await gateway.subscribe(topic)
  const untouched = gateway.pull(neighbour, { wait: 50 })
  await gateway.parked(2, neighbour)
  await other.parked(1, subscription)
  expect((await gateway.request('DELETE', `/subscriptions/${subscription}`)).status).toBe(204)
  for (const ended of [answer, elsewhere]) expectProblem(await ended, 410, 'subscription-ended')
  for (const on of [gateway, other]) {
    expectProblem(await on.pull(subscription, { wait: 0 }), 410, 'subscription-ended')
  }
  const id = await publish(database, topic)
  expect(jobOf(await untouched).id).toBe(id)
  expect((await gateway.request('DELETE', `/subscriptions/${subscription}`)).status).toBe(204)
})

test('the end of a subscription also answers a pull whose claim is under way', async () => {
  const own = await gatewayFor(database, noBackstop)
  const { topic, job, answer } = await heldJob(own)
  const subscription = String((await own.job(job.id)).subscription)
  // The claim has looked at its subscriptions before it comes to the jobs.
  const unblock = await holdClaims(database)
  await database.query('select pullgate.wake($1)', [topic])
  await claimsHeld(database, 1)
  // It is answered when its pulls have been.
  const deleted = own.request('DELETE', `/subscriptions/${subscription}`)
  const ended = 'select ended_at is not null from pullgate.subscription where id = $1'
  await until(async () => expect(await database.value(ended, [subscription])).toBe(true))
  await unblock()
  expectProblem(await answer, 410, 'subscription-ended')
  expect((await deleted).status).toBe(204)
})

test('an ended subscription gives its jobs back when asked to, and they wake others', async () => {
  const { job, topic, answer } = await heldJob()
  const ended = String((await gateway.job(job.id)).subscription)
  const neighbour = await gateway.subscribe(topic)
  const next = gateway.pull(neighbour, { wait: 50 })
  await gateway.parked(2, neighbour)
  expect((await gateway.request('DELETE', `/subscriptions/${ended}?release=true`)).status).toBe(204)
  expectProblem(await answer, 410, 'subscription-ended')
  expect(jobOf(await next)).toMatchObject({ id: job.id, attempt: 1 })
  expectProblem(await gateway.settle(job, 'complete'), 409, 'lease-lost')
  expect(await stateOf(database, job.id)).toBe('running')
})

test('a delayed job reaches a parked pull of a quiet topic in the statement that makes it ready', async () => {
  const { topic, subscription, answer } = await parkedPull()
  await quiet(gateway, subscription)
  await database.query(`
    create table public.step (job_id bigint, state text, transaction xid8);
    create function public.note_step() returns trigger language plpgsql as $$
      begin insert into public.step values (new.id, new.state, pg_current_xact_id()); return null; end $$;
    create trigger note_step after update on pullgate.job for each row execute function public.note_step()`)
  onTestFinished(async () => {
    await database.query('drop function public.note_step cascade; drop table public.step')
  })
  const id = await publish(database, topic, { delay: '0.4 seconds' })
  expect(jobOf(await answer)).toMatchObject({ id, attempt: 1 })
  const steps = await database.query(
    `select array_agg(state order by state) as states, count(distinct transaction)::integer as transactions
      from public.step where job_id = $1 and state in ('ready', 'running')`,
    [id],
  )
  expect(steps).toEqual([{ states: ['ready', 'running'], transactions: 1 }])
  expect(await claimed(topic, 'due')).toBe(1)
  expect(await gateway.metric('pullgate_claims_total', { cause: 'due', result: 'jobs' })).toBeGreaterThan(0)
})
