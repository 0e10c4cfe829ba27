import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { readRolesFile } from '../../src/db/migrations.ts'
import { useDatabase } from '../support/database.ts'
import * as jobs from './jobs.ts'
import { publish, refusal, row, rows, value } from './jobs.ts'

/** Roles belong to the cluster, so other files may create and grant at the same time; nothing here drops one. */
const database = useDatabase()
let owner: pg.Client
let publisher: pg.Client
let gateway: pg.Client
let monitor: pg.Client

async function as(role: string): Promise<pg.Client> {
  const session = await database.session()
  await session.query(`set role pullgate_${role}`)
  return session
}
beforeAll(async () => {
  owner = await database.session()
  await owner.query(readRolesFile())
  publisher = await as('publisher')
  gateway = await as('gateway')
  monitor = await as('monitor')
})

const publishOptions =
  'integer,timestamp with time zone,interval,text,integer,text,timestamp with time zone,text'
const manyOptions = publishOptions.replace('interval,text', 'interval,text[]')
const bothPublish = Object.fromEntries(
  [
    ...['text', 'json', 'jsonb'].flatMap((type) => [
      `publish(text,${type},${publishOptions})`,
      `publish_once(text,${type},${publishOptions})`,
    ]),
    `publish_many(text,text[],${manyOptions})`,
    `publish_many(topic_name,json[],${manyOptions})`,
    `publish_many(topic_name,jsonb[],${manyOptions})`,
  ].map((name) => [name, ['gateway', 'publisher']]),
)
const gatewayOnly = [
  'advance_marks(bigint[],bigint[],bigint[],timestamp with time zone,bigint,xid8,timestamp with time zone,xid8[])',
  'arm(uuid,bigint[])',
  'bury(integer[])',
  'cancel(bigint,text)',
  'claim(bigint[],uuid[],integer[],bigint[],bigint[],integer,bigint,uuid[])',
  'claim_due(integer,timestamp with time zone,bigint[],uuid[],integer[],bigint[],bigint[],integer,bigint,uuid[])',
  'complete(bigint,json)',
  'complete(bigint,jsonb)',
  'complete(bigint,text)',
  'confirm(bigint[],uuid[])',
  'disarm(uuid,bigint[])',
  'digest(text)',
  'doubt(bigint[],uuid[])',
  'fail(bigint,text)',
  'forget_publish_keys(integer)',
  'give_again(uuid[],integer[])',
  'give_back(bigint[],uuid[])',
  'give_back_unheard(bigint[],uuid[],double precision)',
  'heartbeats(bigint[],uuid[],integer[],text[])',
  'join_gateway()',
  'look(bigint[],bigint[],bigint[],timestamp with time zone,integer,boolean,boolean)',
  'mend_sequences()',
  `publish_keyed(uuid,uuid,text,text,${publishOptions})`,
  'read_job(bigint)',
  'read_leases(bigint[],uuid[])',
  'read_subscriptions(uuid)',
  'refresh_claims(bigint[],uuid[])',
  'reseat(bigint[],bigint[],bigint,integer)',
  'retire(integer[],integer,bigint[],uuid[])',
  'retry(bigint)',
  'run_due(integer,timestamp with time zone)',
  'set_aside_held(bigint,uuid,text,text)',
  'set_aside_unclaimable(bigint[],bigint[],bigint[],integer)',
  'settle_completes(bigint[],uuid[],text[])',
  'settle_fails(bigint[],uuid[],text[],boolean[],double precision[])',
  'settle_releases(bigint[],uuid[],double precision[])',
  'snapshot_jobs(double precision)',
  'subscribe(text[],text,text,integer,integer,integer)',
  'topic_id(text)',
  'touch_subscriptions(uuid[])',
  'unsubscribe(uuid,boolean)',
  'upkeep()',
  'wake(text)',
]
/** Whatever is not in here, nobody but the owner may call. */
const mayCall: Record<string, string[]> = {
  ...bothPublish,
  ...Object.fromEntries(gatewayOnly.map((name) => [name, ['gateway']])),
  'count_jobs(bigint)': ['gateway', 'monitor'],
  'doctor()': ['gateway', 'monitor'],
  'pending(text,smallint,boolean)': ['gateway', 'monitor'],
  'read_topics(bigint)': ['gateway', 'monitor'],
}

describe('every function', () => {
  test('is callable by the roles it is meant for and by nobody else', async () => {
    const found = await rows<{ signature: string; roles: string[] }>(
      owner,
      `select replace(p.oid::regprocedure::text, 'pullgate.', '') as signature, array_agg(r.name order by r.name) as roles
        from pg_proc p
        cross join (values ('publisher'), ('gateway'), ('monitor')) as r (name)
        where p.pronamespace = 'pullgate'::regnamespace
          and has_function_privilege('pullgate_' || r.name, p.oid, 'execute')
        group by p.oid`,
    )
    expect(Object.fromEntries(found.map((each) => [each.signature, each.roles]))).toEqual(mayCall)
  })
  test('is closed to the public and belongs to the owner', async () => {
    const sql = `select p.oid::regprocedure::text from pg_proc p
      where p.pronamespace = 'pullgate'::regnamespace and (
        p.proowner <> 'pullgate_owner'::regrole
        or exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0))`
    expect(await rows(owner, sql)).toEqual([])
  })
  test('pins its search path, pg_temp last, unless its names were bound when it was created', async () => {
    const sql = `select p.oid::regprocedure::text, p.proconfig from pg_proc p
      where p.pronamespace = 'pullgate'::regnamespace and p.prosqlbody is null
        and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)`
    expect(await rows(owner, sql)).toEqual([])
  })
  test('that runs as the owner is one that a role may call, or a trigger, or for the owner', async () => {
    const sql = `select replace(p.oid::regprocedure::text, 'pullgate.', '') as signature from pg_proc p
      where p.pronamespace = 'pullgate'::regnamespace and p.prosecdef`
    const definers = (await rows<{ signature: string }>(owner, sql)).map((each) => each.signature)
    const rest = definers.filter((signature) => !(signature in mayCall)).sort()
    expect(rest).toEqual([
      'configure(boolean,integer,integer,integer)',
      'configure_topic(text,boolean,integer,text)',
      'job_wakes()',
    ])
  })
})

describe('every table and view', () => {
  test('is open to exactly the roles it is meant for', async () => {
    const found = await rows<{ name: string; rights: string[] }>(
      owner,
      `select c.relname as name, array_agg(r.name || ' ' || p.name order by r.name, p.name) as rights
        from pg_class c
        cross join (values ('publisher'), ('gateway'), ('monitor')) as r (name)
        cross join (values ('select'), ('insert'), ('update'), ('delete'), ('truncate'), ('trigger')) as p (name)
        where c.relnamespace = 'pullgate'::regnamespace and c.relkind in ('r', 'p', 'v')
          and has_table_privilege('pullgate_' || r.name, c.oid, p.name)
        group by c.oid, c.relname`,
    )
    expect(Object.fromEntries(found.map((each) => [each.name, each.rights]))).toEqual({
      inbox: ['publisher insert', 'publisher select'],
      jobs: ['gateway select', 'monitor select'],
      topics: ['gateway select', 'monitor select'],
      migration: ['gateway select', 'monitor select'],
      function_file: ['gateway select', 'monitor select'],
    })
  })
  test('that is a domain belongs to the owner', async () => {
    const sql = `select t.typname from pg_type t
      where t.typnamespace = 'pullgate'::regnamespace and t.typtype = 'd' and t.typowner <> 'pullgate_owner'::regrole`
    expect(await rows(owner, sql)).toEqual([])
  })
  test('belongs to the owner, and no sequence is open to anyone', async () => {
    const sql = `select c.relname from pg_class c
      where c.relnamespace = 'pullgate'::regnamespace and (
        c.relowner <> 'pullgate_owner'::regrole
        or c.relkind = 'S' and c.relacl is not null and exists (
          select from aclexplode(c.relacl) a where a.grantee <> c.relowner))`
    expect(await rows(owner, sql)).toEqual([])
  })
})

describe('a publisher', () => {
  test('publishes in every way, and gets the ids', async () => {
    await publish(publisher, 'roles', { priority: 1, dedupe_key: 'k', delay: '1 hour' })
    await publish(publisher, 'brand_new')
    for (const type of ['text', 'json', 'jsonb']) {
      expect(await value(publisher, `select pullgate.publish('roles', '{}'::${type})`)).toMatch(/^\d+$/)
      await rows(publisher, `select * from pullgate.publish_once('roles', '{}'::${type}, dedupe_key => 'o')`)
    }
    await rows(publisher, `select pullgate.publish_many('roles', '{1,2}'::text[])`)
    await rows(publisher, `select pullgate.publish_many('roles', array['1'::jsonb], dedupe_keys => '{a}')`)
    await rows(publisher, `select pullgate.publish_many('roles', array['1'::json])`)
    const inserted = `insert into pullgate.inbox (topic, job_spec) values ('roles', '1') returning id`
    expect(await value(publisher, inserted)).toMatch(/^\d+$/)
  })
  test.each([
    `select pullgate.claim('{}', '{}', '{}', '{}', '{}')`,
    'select pullgate.cancel(1)',
    `select pullgate.subscribe('{a}', null, 'auto', 60, null)`,
    'select * from pullgate.job',
    'select * from pullgate.jobs',
    `select * from pullgate.publish_keyed(gen_random_uuid(), gen_random_uuid(), 'a', '1')`,
    'select pullgate.forget_publish_keys(1)',
    `insert into pullgate.job (lane_id, topic_id, state, job_spec) values (2, 1, 'ready', '1')`,
    'select pullgate.configure(create_topics => false)',
  ])('may not: %s', async (sql) => {
    expect((await refusal(publisher, sql)).code).toBe('42501')
  })
})

describe('a gateway', () => {
  test('makes all its calls without reaching a table', async () => {
    const subscription = await jobs.subscribe(gateway, 'gate', { name: 'gate' })
    const take = () => jobs.claimOne(gateway, 'gate', subscription)
    for (let job = 0; job < 8; job++) await publish(gateway, 'gate')
    expect(await jobs.heartbeat(gateway, await take())).toMatchObject({ status: 'ok' })
    expect(await jobs.complete(gateway, await take())).toMatchObject({ status: 'ok' })
    expect(await jobs.fail(gateway, await take())).toMatchObject({ status: 'ok' })
    expect(await jobs.release(gateway, await take(), 60)).toMatchObject({ status: 'ok' })
    expect(await jobs.byLease(gateway, 'give_back', [await take()])).toBe(1)
    expect(await jobs.byLease(gateway, 'doubt', [await take()])).toBe(1)
    const auto = await jobs.runningJob(gateway, 'gate_auto', { ack: 'auto' })
    expect(await jobs.byLease(gateway, 'confirm', [auto])).toBe(1)
    await rows(gateway, `select pullgate.complete($1)`, [auto.id])
    await rows(gateway, `select pullgate.complete($1, '1'::json)`, [await publish(gateway, 'gate_json')])
    const keyed = `select * from pullgate.publish_keyed(gen_random_uuid(), gen_random_uuid(), 'gate_keys', '1')`
    await rows(gateway, keyed)
    await rows(gateway, 'select pullgate.forget_publish_keys(1)')
    const other = await publish(gateway, 'gate')
    await rows(gateway, `select pullgate.fail($1, 'no')`, [other])
    await rows(gateway, `select pullgate.retry($1)`, [other])
    await rows(gateway, `select pullgate.cancel($1, 'no')`, [other])
    await jobs.runDue(gateway)
    await jobs.claimDue(gateway, 'gate', subscription)
    await rows(
      gateway,
      `select * from pullgate.look(array[pullgate.topic_id('gate')], '{}', '{}', null, 100, false)`,
    )
    const held = await take()
    expect(await value(gateway, 'select pullgate.join_gateway()')).toEqual(expect.any(Number))
    await rows(gateway, 'select * from pullgate.refresh_claims($1, $2)', [[held.id], [held.lease]])
    await rows(gateway, 'select * from pullgate.read_leases($1, $2)', [[held.id], [held.lease]])
    await rows(gateway, 'select pullgate.retire($1, 0, $2, $3)', [[0], [held.id], [held.lease]])
    await rows(gateway, 'select pullgate.bury($1)', [[-1]])
    await rows(gateway, 'select pullgate.give_back_unheard($1, $2, 1)', [[1], [subscription]])
    await rows(gateway, 'select * from pullgate.touch_subscriptions($1)', [[subscription]])
    await rows(gateway, 'select * from pullgate.read_subscriptions()')
    expect(await row(gateway, 'select * from pullgate.read_job($1)', [other])).toMatchObject({
      state: 'cancelled',
    })
    await rows(
      gateway,
      'select * from pullgate.read_topics(), pullgate.count_jobs(), pullgate.snapshot_jobs(0)',
    )
    await rows(gateway, `select pullgate.wake('gate')`)
    await rows(gateway, `select pullgate.unsubscribe($1, true)`, [subscription])
    await rows(gateway, 'select * from pullgate.jobs')
    await rows(gateway, 'select * from pullgate.topics')
    await rows(gateway, 'select * from pullgate.migration')
  })
  test('empties old history, which belongs to the owner', async () => {
    const id = await publish(owner, 'gate')
    await rows(owner, 'select pullgate.complete($1)', [id])
    await jobs.ageHistory(owner, id, 20)
    expect(await value<number>(gateway, 'select pullgate.upkeep()')).toBe(1)
  })
  test.each([
    'select * from pullgate.job',
    'update pullgate.setting set create_topics = false',
    'truncate pullgate.history',
    'select * from pullgate.subscription',
    'select pullgate.finish(null, null)',
    'select pullgate.configure(create_topics => false)',
  ])('may not: %s', async (sql) => {
    expect((await refusal(gateway, sql)).code).toBe('42501')
  })
})

describe('a monitor', () => {
  test('reads the views for people', async () => {
    expect(await rows(monitor, 'select * from pullgate.jobs')).not.toEqual([])
    expect(await rows(monitor, 'select * from pullgate.topics')).not.toEqual([])
    await rows(monitor, 'select * from pullgate.migration')
  })
  test.each([
    `select pullgate.publish('a', '1')`,
    'select pullgate.read_job(1)',
    'select * from pullgate.job',
    'select * from pullgate.subscription',
    'select * from pullgate.history',
  ])('may not: %s', async (sql) => {
    expect((await refusal(monitor, sql)).code).toBe('42501')
  })
})
