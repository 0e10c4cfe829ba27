import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { checkSchema, migrate } from '../../src/db/migrations.ts'
import { waitsForLock } from '../support/database.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'

// What a migrator may, what its session begins with, and which server it finds.

const serverUrl = inject('serverUrl')

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  onTestFinished(() => client.end().catch(() => undefined))
  return client
}

/** A database, and a session of the superuser's in it. */
async function freshDatabase(options = ''): Promise<{ name: string; url: string; admin: pg.Client }> {
  const name = `pullgate_migrate_${randomBytes(6).toString('hex')}`
  await runOnce(serverUrl, `create database ${name} ${options}`)
  onTestFinished(() => runOnce(serverUrl, `drop database ${name} with (force)`))
  const url = withDatabase(serverUrl, name)
  return { name, url, admin: await connect(url) }
}

/** A role of its own with a password, and the URL for it. */
async function role(url: string): Promise<{ name: string; url: string }> {
  const name = `pullgate_migrator_${randomBytes(6).toString('hex')}`
  await runOnce(serverUrl, `create role ${name} login password 'p'`)
  onTestFinished(() => runOnce(serverUrl, `drop role ${name}`))
  const own = new URL(url)
  own.username = name
  own.password = 'p'
  return { name, url: own.href }
}

test('with nothing to do migrate needs no right to create anything', async () => {
  const { name, url, admin } = await freshDatabase()
  const migrator = await role(url)
  onTestFinished(() => runOnce(url, `drop owned by ${migrator.name} cascade`))
  await admin.query(`grant create on database ${name} to ${migrator.name}`)
  const client = await connect(migrator.url)
  expect((await migrate(client)).applied).not.toEqual([])
  await admin.query(`
    revoke create on database ${name} from ${migrator.name};
    alter schema pullgate owner to current_user;
    grant usage on schema pullgate to ${migrator.name}`)
  expect((await migrate(client)).applied).toEqual([])
})

test('into a schema that was created for it migrate needs no right on the database', async () => {
  const { url, admin } = await freshDatabase()
  const migrator = await role(url)
  onTestFinished(() => runOnce(url, `drop owned by ${migrator.name} cascade`))
  await admin.query(`create schema pullgate authorization ${migrator.name}`)
  const client = await connect(migrator.url)
  await migrate(client)
  expect(await checkSchema(client)).toMatchObject({ state: 'current' })
})

test('migrate takes the time that it needs, whatever limits its session begins with', async () => {
  const { name, url, admin } = await freshDatabase()
  const { rows } = await admin.query<{ version: number }>(
    `select current_setting('server_version_num')::integer as version`,
  )
  const limits = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout']
  if (rows[0] !== undefined && rows[0].version >= 170_000) limits.push('transaction_timeout')
  for (const limit of limits) await admin.query(`alter database ${name} set ${limit} = '1 s'`)
  await admin.query(`begin; select pg_advisory_xact_lock(hashtext('pullgate.migrate'))`)
  const client = await connect(url)
  const migrating = migrate(client)
  await waitsForLock(
    {
      value: async (sql, values) =>
        Object.values((await admin.query<Record<string, unknown>>(sql, values)).rows[0] ?? {})[0],
    },
    client,
  )
  // The limits are what is tried.
  await admin.query('select pg_sleep(1.1)')
  await admin.query('commit')
  expect((await migrating).applied).not.toEqual([])
})

test('functions that depend on the version of Postgres are written anew after a move to another one', async () => {
  const { url, admin } = await freshDatabase()
  const client = await connect(url)
  await migrate(client)
  // As a dump of the older server brings them.
  await admin.query(`
    create or replace function pullgate.is_json(p_text text) returns boolean language plpgsql immutable
      as $$ begin return false; end $$;
    update pullgate.function_file set server_major = 13`)
  // Gateways work meanwhile.
  expect(await checkSchema(client)).toMatchObject({ state: 'current' })
  expect((await migrate(client)).applied).toEqual(['functions/publish-checks.sql'])
  const { rows } = await admin.query<{ json: boolean }>(`select pullgate.is_json('1') as json`)
  expect(rows).toEqual([{ json: true }])
  expect((await migrate(client)).applied).toEqual([])
})

test.each(['SQL_ASCII', 'LATIN1', 'EUC_JP'])(
  'a database of %s is refused, and left as it is',
  async (encoding) => {
    const { url, admin } = await freshDatabase(`encoding '${encoding}' locale 'C' template template0`)
    await expect(migrate(await connect(url))).rejects.toThrow(
      `the encoding of the database is ${encoding}, and pullgate needs UTF8`,
    )
    const { rows } = await admin.query(`select from pg_namespace where nspname = 'pullgate'`)
    expect(rows).toEqual([])
  },
)

test('errors and hints reach a client of another encoding', async () => {
  const { url, admin } = await freshDatabase()
  await migrate(await connect(url))
  await admin.query(`set client_encoding = 'LATIN1'`)
  await expect(
    admin.query(`select pullgate.publish('t', to_json(repeat('x', 2000000))::text)`),
  ).rejects.toMatchObject({ code: 'PL004' })
})
