import pg from 'pg'
import { beforeAll, expect, inject, test } from 'vitest'
import { migrate, readRolesFile, readSqlFiles } from '../../src/db/migrations.ts'
import { useDatabase } from '../support/database.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { publish, rows, value } from './jobs.ts'

/** How sql/roles.sql can be run: again, beside others, by whom. */
const database = useDatabase()
let owner: pg.Client
let publisher: pg.Client

beforeAll(async () => {
  owner = await database.session()
  await owner.query(readRolesFile())
  publisher = await database.session()
  await publisher.query('set role pullgate_publisher')
})

test('it can be run again, and leaves the same rights', async () => {
  const acls = () =>
    rows(
      owner,
      `select oid::regclass::text as name, relowner, relacl::text from pg_class where relnamespace = 'pullgate'::regnamespace
        union all select oid::regprocedure::text, proowner, proacl::text from pg_proc where pronamespace = 'pullgate'::regnamespace
        order by 1`,
    )
  const before = await acls()
  await owner.query(readRolesFile())
  expect(await acls()).toEqual(before)
  expect((await migrate(owner)).applied).toEqual([])
})
test('run again it does not wait for open transactions, nor make others wait', async () => {
  const open = await database.session()
  await open.query('begin')
  await publish(open, 'roles')
  const again = await database.session()
  await again.query(`set lock_timeout = '2s'; begin`)
  await again.query(readRolesFile())
  await publisher.query(`set lock_timeout = '2s'`)
  await publish(publisher, 'roles')
  await again.query('commit')
  await open.query('commit')
})
test('it can be run in two databases at once', async () => {
  const serverUrl = inject('serverUrl')
  const names = ['one', 'two'].map((name) => `${new URL(database.url).pathname.slice(1)}_${name}`)
  for (const name of names) await runOnce(serverUrl, `create database ${name} template ${inject('template')}`)
  await Promise.all(names.map((name) => runOnce(withDatabase(serverUrl, name), readRolesFile())))
  for (const name of names) await runOnce(serverUrl, `drop database ${name} with (force)`)
})
test('it can be run by an owner of the database who is no superuser, who can still migrate then', async () => {
  const serverUrl = inject('serverUrl')
  const name = `${new URL(database.url).pathname.slice(1)}_admin`
  await runOnce(serverUrl, `create role ${name} login createrole password 'test'`)
  // What a role has that created another.
  const created = (await value<boolean>(owner, `select current_setting('server_version_num')::int >= 160000`))
    ? 'with admin true, set false, inherit false'
    : 'with admin option'
  await runOnce(serverUrl, `grant pullgate_owner to ${name} ${created}`)
  await runOnce(serverUrl, `create database ${name} owner ${name}`)
  const url = new URL(withDatabase(serverUrl, name))
  url.username = name
  url.password = 'test'
  const admin = new pg.Client({ connectionString: url.href })
  await admin.connect()
  await migrate(admin)
  await admin.query(readRolesFile())
  await admin.query(readRolesFile())
  const files = readSqlFiles()
  const changed = { ...files, functions: files.functions.map((file) => ({ ...file, checksum: 'changed' })) }
  expect((await migrate(admin, changed)).applied.length).toBe(files.functions.length)
  await admin.end()
  const publishing = `set role pullgate_publisher; select pullgate.publish('a', '1')`
  await runOnce(withDatabase(serverUrl, name), publishing)
  await runOnce(serverUrl, `drop database ${name} with (force)`)
  await runOnce(serverUrl, `drop role ${name}`)
})
