import { expect, test } from 'vitest'
import { runDoctor } from '../../src/cli/doctor.ts'
import { publish, rows, value } from '../sql/jobs.ts'
import type { PublishOptions } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor } from '../support/gateway.ts'
import { expectProblem, jobOf, until } from '../support/http.ts'

const database = useDatabase()

/** Incompressible, and so long that it leaves the row. */
const bulky = () => JSON.stringify(Array.from({ length: 2_000 }, () => Math.random().toString(36)).join(''))

const stateOf = (id: string) => value(database, 'select state from pullgate.job where id = $1', [id])

/** Publishes a job whose stored spec is damaged: reading it raises XX001. Undefined where the server lacks pg_surgery. */
async function publishDamaged(topic: string, options: PublishOptions = {}): Promise<string | undefined> {
  const available = await value<boolean>(
    database,
    `select exists (select from pg_available_extensions where name = 'pg_surgery')`,
  )
  if (!available) return undefined
  await rows(database, 'create extension if not exists pg_surgery')
  const id = await publish(database, topic, { spec: bulky(), ...options })
  const toast = await value(
    database,
    `select reltoastrelid::regclass from pg_class where oid = 'pullgate.job'::regclass`,
  )
  // The newest value is that of this job. Found first: a scan's pins would keep heap_force_kill away.
  const chunks = await value(
    database,
    `select array_agg(ctid)::text from ${toast} where chunk_id = (select max(chunk_id) from ${toast})`,
  )
  await rows(database, 'select heap_force_kill($1::regclass, $2::tid[])', [toast, chunks])
  return id
}

test('a job that cannot be read is set aside, and the jobs behind it are handed out', async ({ skip }) => {
  const gateway = await gatewayFor(database)
  const topic = 'unreadable'
  const bad = await publishDamaged(topic)
  if (bad === undefined) return skip('this Postgres has no extension pg_surgery to damage a row with')
  const good = await publish(database, topic, { spec: bulky() })
  const pulled = jobOf(await gateway.pull(await gateway.subscribe(topic), { wait: 5 }))
  expect(pulled.id).toBe(good)
  expect(await value(database, 'select state || last_error from pullgate.job where id = $1', [bad])).toMatch(
    /^orphanedset aside: .*XX001/,
  )
})

test('a job that cannot be read and falls due does not keep others from falling due', async ({ skip }) => {
  const gateway = await gatewayFor(database)
  const topic = 'unreadable-due'
  const subscription = await gateway.subscribe(topic)
  const bad = await publishDamaged(topic, { delay: '1 hour' })
  if (bad === undefined) return skip('this Postgres has no extension pg_surgery to damage a row with')
  const good = await publish(database, topic, { spec: bulky(), delay: '1 hour' })
  const pull = gateway.pull(subscription, { wait: 20 })
  await gateway.parked(1, subscription)
  await rows(database, `update pullgate.job set due_at = clock_timestamp() where id = any ($1::bigint[])`, [
    [bad, good],
  ])
  expect(jobOf(await pull).id).toBe(good)
  await until(async () => expect(await stateOf(bad)).toBe('orphaned'))
})

/** While `work` runs, the table refuses to let the job of this spec become what the condition says. */
async function refusing(condition: string, work: () => Promise<void>): Promise<void> {
  await rows(database, `alter table pullgate.job add constraint test_refuses check (${condition}) not valid`)
  try {
    await work()
  } finally {
    await rows(database, 'alter table pullgate.job drop constraint test_refuses')
  }
}

test('a job that a claim may not change is set aside, and the job behind it is handed out', async () => {
  const gateway = await gatewayFor(database)
  const topic = 'unclaimable'
  const bad = await publish(database, topic, { spec: '"bad"' })
  const good = await publish(database, topic)
  await refusing(`state <> 'running' or job_spec <> '"bad"'`, async () => {
    expect(jobOf(await gateway.pull(await gateway.subscribe(topic), { wait: 5 })).id).toBe(good)
  })
  expect(await stateOf(bad)).toBe('orphaned')
})

test('a job whose settle the database refuses is set aside, and not run again', async () => {
  const gateway = await gatewayFor(database)
  const topic = 'unsettleable'
  const id = await publish(database, topic)
  const job = jobOf(await gateway.pull(await gateway.subscribe(topic), { wait: 5 }))
  await rows(
    database,
    `insert into pullgate.history (
        day_slot, id, lane_id, topic_id, due_at, created_at, finished_at, priority, attempts, max_attempts, deliveries,
        auto_ack, state, on_lost, log, job_spec)
      values (pullgate.day_slot(clock_timestamp()), $1, 0, 0, now(), now(), now(), 0, 0, 1, 0, false, 'failed', 'fail', '[]', '1')`,
    [id],
  )
  expectProblem(await gateway.settle(job, 'complete'), 500, 'internal')
  expect(await stateOf(id)).toBe('orphaned')
  expectProblem(await gateway.settle(job, 'complete'), 409, 'lease-lost')
})

test('a publish over HTTP mends the sequence that gave it an id which is taken', async () => {
  const gateway = await gatewayFor(database)
  const highest = await publish(database, 'behind')
  await rows(database, `select setval('pullgate.job_id_seq', $1, false)`, [highest])
  expect(Number(await gateway.publish('behind'))).toBeGreaterThan(Number(highest))
})

test('a gateway that starts moves sequences forward that are behind, and shows what was set aside', async () => {
  await publish(database, 'behind')
  const job = await publish(database, 'aside')
  await rows(database, `select setval('pullgate.job_id_seq', 1, false)`)
  await rows(database, `select pullgate.set_aside($1, '23505', 'some_constraint')`, [job])
  const gateway = await gatewayFor(database)
  await until(async () => {
    expect(await gateway.metric('pullgate_problems', { problem: 'jobs-set-aside' })).toBeGreaterThan(0)
  })
  expect(await value(database, `select count(*) from pullgate.sequences_behind()`)).toBe('0')
  expect(await stateOf(job)).toBe('orphaned')
})

test('pullgate doctor of an older version reports a breaking migration and exits with 1', async () => {
  const session = await database.session()
  const lines: string[] = []
  await session.query('begin')
  await session.query(
    `insert into pullgate.migration (revision, name, checksum, breaking) values (900001, 'later', 'x', true)`,
  )
  expect(await runDoctor(session, (line) => void lines.push(line))).toBe(1)
  await session.query('rollback')
  expect(lines).toEqual(['schema-breaking: the schema is too new for this version: upgrade pullgate'])
})

test('pullgate doctor names what it found and exits with 1, else with 0', async () => {
  const session = await database.session()
  const lines: string[] = []
  const doctor = () => runDoctor(session, (line) => void lines.push(line))
  const job = await publish(database, 'doctor')
  await rows(database, `delete from pullgate.job where state = 'orphaned'`)
  expect(await doctor()).toBe(0)
  await rows(database, `select pullgate.set_aside($1, '23505', 'history_07_pkey')`, [job])
  expect(await doctor()).toBe(1)
  expect(lines[0]).toMatch(/^schema revision \d+: nothing found$/)
  expect(lines[1]).toMatch(
    new RegExp(`^jobs-set-aside \\(1\\): job ${job} set aside: .*SQLSTATE 23505, history_07_pkey`),
  )
})
