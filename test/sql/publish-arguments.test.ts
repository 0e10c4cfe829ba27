import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { publish, readJob, refusal, row, rows, stateOf, value } from './jobs.ts'

// What publishers may pass, and how drivers pass it: untyped parameters, JSON of each type, arrays of any shape.
const database = useDatabase()
let session: pg.Client
beforeAll(async () => {
  session = await database.session()
})
const specOf = async (id: string) => (await readJob(session, id))['job_spec']
const ids = async (sql: string, values: unknown[] = []) =>
  (await rows<{ id: string }>(session, `select id from ${sql} as id`, values)).map(({ id }) => id)
const specsOf = async (given: readonly string[]) => {
  const specs: unknown[] = []
  for (const id of given) specs.push(await specOf(id))
  return specs
}

describe('the job spec', () => {
  const raw = '{"b": 1,  "a": 1}'
  const jsonb = '{"a": 1, "b": 1}'
  test.each([
    ['an untyped literal', `'${raw}'`, raw],
    ['text', `'${raw}'::text`, raw],
    ['varchar', `'${raw}'::varchar`, raw],
    ['json', `'${raw}'::json`, raw],
    ['jsonb', `'${raw}'::jsonb`, jsonb],
    ['json_build_object', `json_build_object('b', 1, 'a', 1)`, '{"b" : 1, "a" : 1}'],
    ['jsonb_build_object', `jsonb_build_object('b', 1, 'a', 1)`, jsonb],
    ['to_json', `to_json(array[1,2])`, '[1,2]'],
  ])('may be %s', async (_, argument, spec) => {
    expect(await specOf(await value(session, `select pullgate.publish('types', ${argument})`))).toBe(spec)
    const once = await row<{ id: string }>(
      session,
      `select * from pullgate.publish_once('types', ${argument})`,
    )
    expect(await specOf(once.id)).toBe(spec)
  })
  test('may be an untyped parameter, which counts as text', async () => {
    const id = await value(session, 'select pullgate.publish($1, $2)', ['types', raw])
    expect(await specOf(id)).toBe(raw)
    const named = 'select pullgate.publish(topic => $1, job_spec => $2, priority => $3, dedupe_key => $4)'
    expect(await specOf(await value(session, named, ['types', raw, 1, 'k']))).toBe(raw)
  })
})

describe('publish_many', () => {
  const specs = ['{"b": 1,  "a": 1}', '2']
  test.each([
    ['untyped parameters, as drivers send them', `pullgate.publish_many($1, $2)`, specs],
    ['the same by name', `pullgate.publish_many(topic => $1, job_specs => $2, priority => 1)`, specs],
    ['text[]', `pullgate.publish_many($1::text, $2::text[])`, specs],
    ['varchar[]', `pullgate.publish_many($1::varchar, $2::varchar[])`, specs],
    ['json[]', `pullgate.publish_many($1::varchar, $2::json[])`, specs],
    ['jsonb[]', `pullgate.publish_many($1, $2::jsonb[])`, ['{"a": 1, "b": 1}', '2']],
    [
      'jsonb[] with a topic of type text',
      `pullgate.publish_many($1::text, $2::jsonb[])`,
      ['{"a": 1, "b": 1}', '2'],
    ],
  ])('takes %s', async (_, call, expected) => {
    expect(await specsOf(await ids(call, ['many', specs]))).toEqual(expected)
  })
  test.each([
    ['bounds that begin at 0', `'[0:1]={1,2}'`, `'[0:1]={a,b}'`],
    ['bounds that differ', `'[-3:-2]={1,2}'`, `'[5:6]={a,b}'`],
    ['two dimensions', `'{{1},{2}}'`, `'{{a},{b}}'`],
    ['bounds that are unusual in two dimensions', `'[0:0][2:3]={{1,2}}'`, `'{a,b}'`],
  ])('takes arrays with %s, in the order of their elements', async (name, given, keys) => {
    const topic = `bounds-${name.replaceAll(/[^a-z]/g, '')}`
    expect(await specsOf(await ids(`pullgate.publish_many('${topic}', ${given}::text[])`))).toEqual([
      '1',
      '2',
    ])
    const keyed = `pullgate.publish_many('${topic}', ${given}::text[], dedupe_keys => ${keys}::text[])`
    const published = await ids(keyed)
    expect(await specsOf(published)).toEqual(['1', '2'])
    expect((await readJob(session, published[1] ?? ''))['dedupe_key']).toBe('b')
    expect(await ids(keyed)).toEqual(published)
  })
  test('refuses null for the specs, which adds nothing', async () => {
    expect(await refusal(session, `select pullgate.publish_many('many', null::text[])`)).toMatchObject({
      code: 'PL003',
    })
  })
})

test('null is the default, for every option of every way to publish', async () => {
  const nulls = `priority => null, run_at => null, delay => null, max_attempts => null, on_lost => null,
    expires_at => null, traceparent => null`
  const published = [
    await value(session, `select pullgate.publish('nulls', '1', dedupe_key => null, ${nulls})`),
    await value(session, `select pullgate.publish('nulls', '1'::jsonb, dedupe_key => null, ${nulls})`),
    await value(session, `select id from pullgate.publish_once('nulls', '1', dedupe_key => null, ${nulls})`),
    await value(
      session,
      `select pullgate.publish_many('nulls', '{1}'::text[], dedupe_keys => null, ${nulls})`,
    ),
    await value(
      session,
      `select pullgate.publish_many('nulls', '{1}'::text[], dedupe_keys => '{null}', ${nulls})`,
    ),
    await value(session, `insert into pullgate.inbox values (null, 'nulls', '1') returning id`),
  ]
  for (const id of published) {
    expect(await readJob(session, id)).toMatchObject({
      ...{ priority: 0, state: 'ready', max_attempts: 5, on_lost: 'requeue', dedupe_key: null },
    })
  }
})

describe('an instant or delay that no answer could say', () => {
  const calls = [
    (option: string) => `select pullgate.publish('instants', '1', ${option})`,
    (option: string) => `select pullgate.publish('instants', '1'::jsonb, ${option})`,
    (option: string) => `select pullgate.publish_once('instants', '1', ${option})`,
    (option: string) => `select pullgate.publish_many('instants', '{1}'::text[], ${option})`,
    (option: string) =>
      `select pullgate.publish_many('instants', '{1}'::text[], dedupe_keys => '{a}', ${option})`,
    (option: string) =>
      option.replace(
        /(\w+) => (.*)/,
        `insert into pullgate.inbox (topic, job_spec, $1) values ('instants', '1', $2)`,
      ),
  ]
  test.each([
    ['run_at', `'infinity'`],
    ['run_at', `'294276-12-31 23:59:59+00'`],
    ['run_at', `'12345-01-01 00:00:00+00'`],
    ['run_at', `'10000-01-01 00:00:00+00'`],
    ['expires_at', `'infinity'`],
    ['expires_at', `'10000-01-01 00:00:00+00'`],
    ['delay', `'178000000 years'`],
    ['delay', `'9000 years'`],
    ['delay', `'7990 years'`],
  ])('is refused by name: %s => %s', async (option, given) => {
    for (const call of calls) {
      const error = await refusal(session, call(`${option} => ${given}`))
      expect([error.code, error.column]).toEqual(['PL005', option])
      expect(error.hint).toContain('10000')
    }
    expect(await value(session, `select count(*) from pullgate.jobs where topic = 'instants'`)).toBe('0')
  })
  test('the last of year 9999 is taken, and whatever is past counts as now', async () => {
    const last = '9999-12-31T23:59:59.999Z'
    const id = await publish(session, 'last', { run_at: last, expires_at: last })
    expect(await row(session, 'select due_at, expires_at from pullgate.jobs where id = $1', [id])).toEqual({
      due_at: new Date(last),
      expires_at: new Date(last),
    })
    for (const options of [
      { run_at: '-infinity' },
      { delay: '-178000000 years' },
      { delay: '-2000 years' },
    ]) {
      expect(await stateOf(session, await publish(session, 'past', options))).toBe('ready')
    }
    expect(await stateOf(session, await publish(session, 'past', { expires_at: '-infinity' }))).toBe('ready')
  })
})

test('an error of an argument names it', async () => {
  for (const [sql, column] of [
    [`select pullgate.publish('a/b', '1')`, 'topic'],
    [`select pullgate.publish('errors', '{')`, 'job_spec'],
    [`select pullgate.publish('errors', '"' || repeat('x', 1048576) || '"')`, 'job_spec'],
    [`select pullgate.publish('errors', '1', priority => 11)`, 'priority'],
    [`select pullgate.publish('errors', '1', run_at => now(), delay => '1 s')`, 'delay'],
    [`select pullgate.publish('errors', '1', max_attempts => 0)`, 'max_attempts'],
    [`select pullgate.publish('errors', '1', on_lost => 'x')`, 'on_lost'],
    [`select pullgate.publish('errors', '1', dedupe_key => '')`, 'dedupe_key'],
    [`select pullgate.publish('errors', '1', traceparent => repeat('x', 201))`, 'traceparent'],
    [`select pullgate.publish_many('errors', '{1}'::text[], dedupe_keys => '{}')`, 'dedupe_keys'],
    [`select pullgate.complete(1, '{')`, 'result'],
    [`select pullgate.configure_topic('errors', max_attempts => 101)`, 'max_attempts'],
    [`select pullgate.configure_topic('a/b')`, 'topic'],
    ['select pullgate.configure(history_days => 60)', 'history_days'],
    ['select pullgate.configure(history_days => 0)', 'history_days'],
    ['select pullgate.configure(job_spec_max_bytes => 2147483647)', 'job_spec_max_bytes'],
    ['select pullgate.configure(subscription_idle_days => -1)', 'subscription_idle_days'],
  ] as const) {
    const error = await refusal(session, sql)
    expect([error.code?.slice(0, 4), error.column], sql).toEqual(['PL00', column])
    expect(error.hint, sql).not.toBeUndefined()
  }
})

test('complete takes its result as text, json or jsonb', async () => {
  for (const [argument, result] of [
    [`'{"b":  1}'`, '{"b":  1}'],
    [`'{"b":  1}'::json`, '{"b":  1}'],
    [`'{"b":  1}'::jsonb`, '{"b": 1}'],
    [`json_build_object('b', 1)`, '{"b" : 1}'],
    ['null', null],
  ] as const) {
    const id = await publish(session, 'results')
    expect(await value(session, `select pullgate.complete($1, ${argument})`, [id])).toBe(true)
    expect((await readJob(session, id))['result']).toBe(result)
  }
  const id = await publish(session, 'results')
  expect(await value(session, 'select pullgate.complete($1)', [id])).toBe(true)
  const untyped = await publish(session, 'results')
  expect(await value(session, 'select pullgate.complete($1, $2)', [untyped, { b: 1 }])).toBe(true)
  expect((await readJob(session, untyped))['result']).toBe('{"b":1}')
})
