import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../src/db/database.ts'
import { gatewayFor } from '../support/gateway.ts'
import type { TestGateway } from '../support/gateway.ts'
import { jobOf, until } from '../support/http.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { transactionPooler } from '../support/transaction-pooler.ts'

// Settings that an operator gave the database or the role, and that every new session starts with.

type Settings = Readonly<Record<string, string>>

/** A database of its own with these settings, and a session that was opened before they were made. */
async function databaseWith(settings: Settings): Promise<{ url: string; admin: pg.Client }> {
  const name = `pullgate_settings_${randomBytes(6).toString('hex')}`
  const serverUrl = inject('serverUrl')
  await runOnce(serverUrl, `create database ${name} template ${inject('template')}`)
  onTestFinished(() => runOnce(serverUrl, `drop database ${name} with (force)`))
  const url = withDatabase(serverUrl, name)
  const admin = new pg.Client({ connectionString: url })
  admin.on('error', () => undefined)
  await admin.connect()
  onTestFinished(() => admin.end())
  // Functions of these names stand in front of Postgres's own where the search path says so.
  await admin.query(`
    create schema evil;
    create function evil.current_setting(text) returns text language plpgsql as $$ begin raise 'evil'; end $$;
    create function evil.pg_backend_pid() returns integer language plpgsql as $$ begin raise 'evil'; end $$;
    create function evil.pg_notify(text, text) returns void language plpgsql as $$ begin raise 'evil'; end $$;
    create function evil.clock_timestamp() returns timestamptz language plpgsql as $$ begin raise 'evil'; end $$`)
  const { rows } = await admin.query<{ version: string }>(
    `select current_setting('server_version_num') as version`,
  )
  const version = Number(rows[0]?.version)
  for (const [setting, value] of Object.entries(settings)) {
    if (setting === 'transaction_timeout' && version < 170_000) continue
    await admin.query(`alter database ${name} set ${setting} = ${value}`)
  }
  return { url, admin }
}

function expectInstants(job: Readonly<Record<string, unknown>>, ...fields: string[]): void {
  for (const field of fields) {
    const value = job[field]
    expect(value, `${field} of ${JSON.stringify(job)}`).toEqual(expect.any(String))
    // Of today, in RFC 3339: day and month have not changed places.
    expect(Math.abs(Date.parse(String(value)) - Date.now()), field).toBeLessThan(600_000)
  }
}

/** A job from its publish to its end, with all that needs the database's clock, arrays or isolation. */
async function wholeLife(gateway: TestGateway, admin: pg.Client): Promise<void> {
  const subscription = await gateway.subscribe('life')
  const pulls = [gateway.pull(subscription, { wait: 50 }), gateway.pull(subscription, { wait: 50 })]
  await gateway.parked(2, subscription)
  const delayed = await gateway.publish('life', '{"n":1}', { delaySeconds: 1 })
  expectInstants(await gateway.job(delayed), 'createdAt', 'dueAt')
  await gateway.publish('life', '{"n":2}')
  const jobs = (await Promise.all(pulls)).map(jobOf)
  for (const job of jobs) expectInstants({ ...job }, 'leaseExpiresAt')

  const heartbeats = await Promise.all(jobs.map((job) => gateway.settle(job, 'heartbeat')))
  for (const { status, text } of heartbeats) expect(status, text).toBe(200)
  const [first, second] = jobs
  if (first === undefined || second === undefined) throw new Error('there were two pulls')
  // Nobody renews it: its hold ends soon.
  const { id } = first
  await admin.query(
    `update pullgate.job set lease_ends_at = clock_timestamp() + interval '1 s', lease_check_at = clock_timestamp() + interval '1 s'
      where id = $1`,
    [id],
  )
  const again = jobOf(await gateway.pull(subscription, { wait: 50 }))
  expect(again).toMatchObject({ id, attempt: 2 })

  const failed = [
    await gateway.settle(again, 'fail', { error: 'x', retryAfterSeconds: 100 }),
    await gateway.settle(again, 'fail', { error: 'x', retryAfterSeconds: 100 }),
  ]
  for (const { body } of failed) expectInstants(body, 'dueAt')
  expect(failed[1]?.body).toEqual(failed[0]?.body)
  const { history } = await gateway.job(id)
  expect(history).toHaveLength(2)
  for (const entry of history as Record<string, unknown>[]) {
    expectInstants(entry, 'at')
    expect(entry.at).toMatch(/(Z|\+00:00)$/)
  }

  expect((await gateway.settle(second, 'complete', { result: [1] })).status).toBe(200)
  expectInstants(await gateway.job(second.id), 'createdAt', 'dueAt', 'claimedAt', 'finishedAt')
}

/** A settle that waits for somebody else's change of the job: under REPEATABLE READ it would be refused then. */
async function meets(gateway: TestGateway, admin: pg.Client): Promise<void> {
  const id = await gateway.publish('met')
  const job = jobOf(await gateway.pull(await gateway.subscribe('met'), { wait: 50 }))
  await admin.query('begin')
  await admin.query(`update pullgate.job set progress = '1' where id = $1`, [id])
  const settling = gateway.settle(job, 'complete')
  await until(async () => {
    const { rows } = await admin.query(
      `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
    )
    expect(rows).toHaveLength(1)
  })
  await admin.query('commit')
  const { status, text } = await settling
  expect(status, text).toBe(200)
}

const hostile: Record<string, Settings> = {
  'dates that Germans write, arrays without nulls, few digits, functions that hide others': {
    ...{ datestyle: `'German, DMY'`, timezone: `'Asia/Kolkata'`, intervalstyle: 'sql_standard' },
    ...{
      array_nulls: 'off',
      extra_float_digits: '-15',
      bytea_output: 'escape',
      search_path: 'evil, pg_catalog',
    },
    ...{ default_transaction_isolation: `'repeatable read'`, exit_on_error: 'on' },
  },
  'dates whose time zone reads as another one, and short times': {
    ...{ datestyle: `'SQL, DMY'`, timezone: `'Asia/Shanghai'`, standard_conforming_strings: 'off' },
    ...{ transform_null_equals: 'on', lock_timeout: '1', enable_indexscan: 'off', enable_nestloop: 'off' },
    ...{ idle_session_timeout: `'2 s'`, transaction_timeout: `'1 s'`, statement_timeout: `'2 s'` },
  },
  'isolation that makes statements fail which meet': {
    default_transaction_isolation: 'serializable',
    default_transaction_deferrable: 'on',
  },
}

test.each(Object.entries(hostile))(
  'a gateway works on a database with %s',
  { timeout: 90_000 },
  async (_, settings) => {
    const { url, admin } = await databaseWith(settings)
    const gateway = await gatewayFor({ url })
    await wholeLife(gateway, admin)
    await meets(gateway, admin)
    const subscription = await gateway.subscribe('many', { ack: 'auto' })
    const delayed = await gateway.publish('many', '{}', { delaySeconds: 2.5 })
    expect(jobOf(await gateway.pull(subscription, { wait: 50 }))).toMatchObject({ id: delayed })
    await until(async () => expect(await gateway.state(delayed)).toBe('delivered'))
    expect(await gateway.metric('pullgate_listener_losses_total')).toBe(0)
    expect(await gateway.metric('pullgate_db_errors_total')).toBe(0)
  },
)

test('behind a transaction pooler, where settings cannot be made, one that would break things is named', async () => {
  const { url } = await databaseWith({
    timezone: `'Asia/Tokyo'`,
    array_nulls: 'off',
    datestyle: `'German, DMY'`,
  })
  const pooler = await transactionPooler(url)
  const pool = openDatabase({
    ...{
      url: pooler.url,
      applicationName: 'test',
      poolMax: 1,
      connectTimeoutMs: 5_000,
      statementTimeoutMs: 5_000,
    },
    emit: (event) => expect(event).toBeUndefined(),
  })
  onTestFinished(() => pool.close())
  await expect(pool.withClient((client) => client.query('select'))).rejects.toThrow(
    /alter role .* set DateStyle = .*alter role .* set array_nulls = 'on'$/,
  )
})
