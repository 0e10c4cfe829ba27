import { expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'

// Publishers call the SQL API in sessions of their own, with whatever settings those have.

const database = useDatabase()

const hostile = [
  `set datestyle = 'SQL, DMY'`,
  `set timezone = 'Asia/Shanghai'`,
  `set intervalstyle = 'sql_standard'`,
  'set standard_conforming_strings = off',
  'set transform_null_equals = on',
  'set array_nulls = off',
  'set extra_float_digits = -15',
  'set bytea_output = escape',
  'set quote_all_identifiers = on',
  `set plpgsql.extra_errors = 'all'`,
  `set default_transaction_isolation = 'serializable'`,
  'set search_path = evil, pg_catalog',
]

test('the SQL API works in a session whose settings are odd', async () => {
  const names = ['clock_timestamp()', 'pg_current_xact_id()', 'current_setting(text)', 'length(text)']
  await database.query('create schema evil')
  for (const name of names) {
    await database.query(
      `create function evil.${name} returns text language plpgsql as $$ begin raise 'evil'; end $$`,
    )
  }
  const session = await database.session()
  for (const statement of hostile) await session.query(statement)
  const first = async (sql: string) => {
    const { rows } = await session.query<Record<string, unknown>>(sql)
    return Object.values(rows[0] ?? {})[0]
  }
  const due = `'2999-02-01 10:00+00'`
  const id = await first(
    `select pullgate.publish('odd', '{"a":1}'::text, dedupe_key => 'k', run_at => ${due})`,
  )
  expect(await first(`select pullgate.publish('odd', '1'::text, dedupe_key => 'k')`)).toBe(id)
  expect(await first(`select due_at = ${due} from pullgate.jobs where id = ${String(id)}`)).toBe(true)
  expect(await first(`select count(*)::integer from pullgate.publish_many('odd', array['1', '2'])`)).toBe(2)
  expect(
    await first(
      `select count(*)::integer from pullgate.publish_many('odd', array['1', '2'], dedupe_keys => array['k', 'l'])`,
    ),
  ).toBe(2)
  await session.query(`insert into pullgate.inbox (topic, job_spec, delay) values ('odd', '1', '1 day')`)
  await expect(first(`select pullgate.publish('odd', 'no')`)).rejects.toMatchObject({ code: 'PL003' })
  expect(await first(`select pullgate.fail(${String(id)}, 'why')`)).toBe(true)
  expect(await first(`select pullgate.retry(${String(id)})`)).toBe('ready')
  expect(await first(`select pullgate.cancel(${String(id)})`)).toBe('cancelled')
  const log = (await first(`select log from pullgate.read_job(${String(id)})`)) as { at: string }[]
  // Read the same by whoever reads it.
  for (const { at } of log) expect(at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00$/)
  expect(await first(`select ready::integer from pullgate.topics where topic = 'odd'`)).toBe(3)
  const other = await first(`select pullgate.publish('odd', '3'::text)`)
  expect(await first(`select pullgate.complete(${String(other)}, '[]')`)).toBe(true)
  expect(await first(`select pullgate.upkeep()`)).toBe(0)
})
