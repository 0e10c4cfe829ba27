import { readFileSync, readdirSync } from 'node:fs'
import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { claim, publish, readJob, refusal, row, rows, subscribe, value } from './jobs.ts'

const database = useDatabase()
const specsDir = new URL('../../examples/specs/', import.meta.url)
let session: pg.Client
const notices: string[] = []

beforeAll(async () => {
  session = await database.session()
  session.on('notice', (notice) => notices.push(notice.message ?? ''))
})

describe('the job spec', () => {
  const hard = {
    'duplicate keys': '{"a":1,"a":2}',
    'white space': ' {\n\t"b" : 1 ,"a": 2}\r\n',
    'an escaped NUL': '{"nul":"\\u0000"}',
    'a lone surrogate': '["\\ud800", "\\udc00x"]',
    'digits beyond a double':
      '[12345678901234567890123, 0.1000000000000000055511151231257827, 1e400, -0, 1E+2]',
    'a bare scalar': '"x"',
    null: 'null',
  }
  const files = readdirSync(specsDir).map(
    (name) => [name, readFileSync(new URL(name, specsDir), 'utf8')] as const,
  )

  test.each([...Object.entries(hard), ...files])('is handed out byte for byte: %s', async (_, spec) => {
    const subscription = await subscribe(session, 'bytes')
    await publish(session, 'bytes', { spec })
    const [job] = await claim(session, 'bytes', subscription)
    expect(job?.job_spec).toBe(spec)
  })
  test('as an untyped literal is taken as text', async () => {
    const id = await value(session, `select pullgate.publish('bytes', '{"b":1,  "a":1, "a":2}')`)
    expect((await readJob(session, id))['job_spec']).toBe('{"b":1,  "a":1, "a":2}')
  })
  test('as jsonb is taken as jsonb writes it', async () => {
    const sql = `select pullgate.publish('bytes', '{"b":1,  "a":1, "a":2}'::jsonb, priority => 3)`
    expect(await readJob(session, await value(session, sql))).toMatchObject({
      job_spec: '{"a": 2, "b": 1}',
      priority: 3,
    })
  })
})

describe('a refusal', () => {
  const secret = 'hunter2'
  const spec = `{"token":"${secret}"}`
  const publishSql = (options: string) => `select pullgate.publish('refused', $1::text${options})`
  const cases: [code: string, about: string, sql: string, spec: string][] = [
    ['PL001', 'a topic with a slash', `select pullgate.publish('a/b', $1::text)`, spec],
    ['PL001', 'a topic that is null', `select pullgate.publish(null, $1::text)`, spec],
    ['PL001', 'a topic of 201 characters', `select pullgate.publish(repeat('a', 201), $1::text)`, spec],
    ['PL003', 'a spec cut short', publishSql(''), spec.slice(0, -1)],
    ['PL003', 'two values', publishSql(''), `${spec} ${spec}`],
    ['PL003', 'an empty spec', publishSql(''), ''],
    ['PL003', 'a bad escape', publishSql(''), `["${secret}\\u12"]`],
    [
      'PL003',
      'one bad spec of many',
      `select pullgate.publish_many('refused', array['1', $1::text])`,
      `{${secret}`,
    ],
    ['PL004', 'a spec over the limit', publishSql(''), `"${secret.repeat(200_000)}"`],
    ['PL005', 'a priority out of range', publishSql(', priority => 11'), spec],
    ['PL005', 'run_at with delay', publishSql(`, run_at => now(), delay => '1 s'`), spec],
    ['PL005', 'max_attempts 0', publishSql(', max_attempts => 0'), spec],
    ['PL005', 'max_attempts 101', publishSql(', max_attempts => 101'), spec],
    ['PL005', 'an unknown on_lost', publishSql(`, on_lost => 'ignore'`), spec],
    ['PL005', 'an empty dedupe key', publishSql(`, dedupe_key => ''`), spec],
    ['PL005', 'a dedupe key of 501 characters', publishSql(`, dedupe_key => repeat('k', 501)`), spec],
    ['PL005', 'a traceparent of 201 characters', publishSql(`, traceparent => repeat('t', 201)`), spec],
    [
      'PL005',
      'too few dedupe keys',
      `select pullgate.publish_many('refused', array[$1::text], dedupe_keys => '{a,b}')`,
      spec,
    ],
    ['PL001', 'a row of the inbox', `insert into pullgate.inbox (topic, job_spec) values ('a/b', $1)`, spec],
    [
      'PL003',
      'a row of the inbox',
      `insert into pullgate.inbox (topic, job_spec) values ('refused', $1)`,
      `{${secret}`,
    ],
  ]
  test.each(cases)('%s of %s tells nothing of the spec', async (code, _, sql, given) => {
    const error = await refusal(session, sql, [given])
    expect(error.code).toBe(code)
    expect([error.message, error.detail, error.hint, error.where].join('\n')).not.toContain(secret)
  })
  test('adds nothing, not even the other jobs of the same call', async () => {
    expect(await value(session, `select count(*) from pullgate.job where job_spec like '%hunter2%'`)).toBe(
      '0',
    )
    expect(await value(session, `select count(*) from pullgate.jobs where topic = 'refused'`)).toBe('0')
  })
  test('the size limit counts bytes and can be changed', async () => {
    await rows(session, 'select pullgate.configure(job_spec_max_bytes => 1024)')
    await publish(session, 'sizes', { spec: `"${'é'.repeat(511)}"` })
    expect((await refusal(session, publishSql(''), [`"${'é'.repeat(511)}x"`])).code).toBe('PL004')
    await rows(session, 'select pullgate.configure(job_spec_max_bytes => 1048576)')
  })
})

describe('a topic that does not exist', () => {
  test('is created by the first publish, with a notice, and again without', async () => {
    await publish(session, 'typo')
    expect(notices).toContain('topic typo is new')
    notices.length = 0
    await publish(session, 'typo')
    await publish(session, 'typo', { priority: 5 })
    expect(notices).toEqual([])
  })
  test('is refused with PL002 where creation by use is off', async () => {
    await rows(session, 'select pullgate.configure(create_topics => false)')
    expect((await refusal(session, `select pullgate.publish('nowhere', '1')`)).code).toBe('PL002')
    expect(
      (await refusal(session, `select pullgate.subscribe('{nowhere}', null, 'auto', 60, null)`)).code,
    ).toBe('PL002')
    await publish(session, 'typo', { priority: -3 })
    await rows(session, `select pullgate.configure_topic('declared')`)
    await publish(session, 'declared')
    await rows(session, 'select pullgate.configure(create_topics => true)')
  })
})

describe('order and time', () => {
  test('higher priorities come first, equal ones in the order of publishing', async () => {
    const subscription = await subscribe(session, 'order')
    for (const [spec, priority] of [
      ['1', 0],
      ['2', 10],
      ['3', 0],
      ['4', -10],
      ['5', 10],
    ] as const) {
      await publish(session, 'order', { spec, priority })
    }
    const jobs = await claim(session, 'order', subscription, 10)
    expect(jobs.map((job) => job.job_spec)).toEqual(['2', '5', '1', '3', '4'])
  })
  test('run_at and delay make the job scheduled; in the past they count as now', async () => {
    const at = '2199-01-01T00:00:00.000Z'
    const later = await row(session, 'select state, due_at from pullgate.jobs where id = $1', [
      await publish(session, 'times', { run_at: at }),
    ])
    expect(later).toEqual({ state: 'scheduled', due_at: new Date(at) })
    const delayed = await publish(session, 'times', { delay: '1 hour' })
    expect(
      await row(
        session,
        'select state, due_at - created_at = interval $$1 hour$$ as exact from pullgate.jobs where id = $1',
        [delayed],
      ),
    ).toEqual({ state: 'scheduled', exact: true })
    for (const options of [{ run_at: '2001-01-01' }, { delay: '-1 hour' }, { delay: '0' }]) {
      expect(
        await row(session, 'select state, due_at = created_at as now from pullgate.jobs where id = $1', [
          await publish(session, 'times', options),
        ]),
      ).toEqual({ state: 'ready', now: true })
    }
  })
  test('options that are not given are the defaults of the topic', async () => {
    await rows(session, `select pullgate.configure_topic('defaults', max_attempts => 7, on_lost => 'orphan')`)
    expect(await readJob(session, await publish(session, 'defaults'))).toMatchObject({
      max_attempts: 7,
      on_lost: 'orphan',
    })
    expect(
      await readJob(session, await publish(session, 'defaults', { max_attempts: 2, on_lost: 'fail' })),
    ).toMatchObject({
      max_attempts: 2,
      on_lost: 'fail',
    })
    expect(await readJob(session, await publish(session, 'undeclared'))).toMatchObject({
      max_attempts: 5,
      on_lost: 'requeue',
    })
  })
})
