import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { describe, expect, inject, onTestFinished, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { gatewayFor } from '../support/gateway.ts'
import { expectProblem, jobOf } from '../support/http.ts'
import { blocksOf, sectionOf } from '../support/page.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { startGatewayProcess } from '../support/process.ts'

/** docs/operations.md: its commands are what runs here. */
const page = 'docs/operations.md'
const root = join(import.meta.dirname, '../..')
const database = useDatabase()

/** Runs shell commands of the page, where `pullgate` is this checkout's; returns what they print. */
async function shell(commands: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'pullgate-operations-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const command = join(folder, 'pullgate')
  writeFileSync(
    command,
    `#!/bin/sh\ncd '${root}' && exec '${process.execPath}' --import tsx src/cli/pullgate.ts "$@"\n`,
  )
  chmodSync(command, 0o755)
  const { HOME, PATH = '' } = process.env
  const { stdout } = await promisify(execFile)('sh', ['-euc', commands], {
    env: { HOME, ...env, PATH: `${folder}:${PATH}` },
  })
  return stdout
}

describe('roles and upgrading', () => {
  const roleNames = ['orders', 'pullgate_serve', 'grafana', 'pullgate_operator', 'alice', 'conductor']
  // Roles belong to the whole cluster.
  const suffix = `_${randomBytes(4).toString('hex')}`
  const [[migrateAndRoles = ''], [logins = '']] = [
    blocksOf(sectionOf(page, 'Roles'), 'sh'),
    blocksOf(sectionOf(page, 'Roles'), 'sql').map((sql) =>
      sql.replace(new RegExp(`\\b(${roleNames.join('|')})\\b`, 'g'), `$1${suffix}`),
    ),
  ]

  async function emptyDatabase(): Promise<string> {
    const name = `pullgate_operations${suffix}`
    const serverUrl = inject('serverUrl')
    await runOnce(serverUrl, `create database ${name}`)
    onTestFinished(async () => {
      await runOnce(serverUrl, `drop database ${name} with (force)`)
      for (const role of roleNames) await runOnce(serverUrl, `drop role if exists ${role}${suffix}`)
    })
    return withDatabase(serverUrl, name)
  }

  /** Runs a statement as one of the page's logins; resolves to its SQLSTATE, or to undefined where it works. */
  async function refusal(client: pg.Client, role: string, sql: string): Promise<string | undefined> {
    await client.query(`set role ${role}${suffix}`)
    try {
      await client.query(sql)
      return undefined
    } catch (error) {
      return (error as pg.DatabaseError).code
    } finally {
      await client.query('reset role')
    }
  }

  test('each login may do its work and nothing else, also after the upgrade; the gateway serves under its own', async () => {
    const url = await emptyDatabase()
    await shell(migrateAndRoles, { DATABASE_URL: url })
    await runOnce(url, logins)
    const publish = `select pullgate.publish('t', '{}')`
    const may: readonly [string, string][] = [
      ['orders', publish],
      ['grafana', 'select * from pullgate.jobs'],
      ['grafana', 'select * from pullgate.topics'],
      ['alice', 'select id from pullgate.jobs'],
      ['alice', `select pullgate.configure_topic('t', paused => true)`],
      ['alice', `select pullgate.configure_topic('t', paused => false)`],
      ['alice', `select pullgate.wake('t')`],
      ['alice', `select pullgate.cancel(1)`],
      ['alice', `select pullgate.retry(1)`],
      ['alice', `select pullgate.fail(1, 'no')`],
      ['alice', `select pullgate.retry(1)`],
      ['alice', `select pullgate.complete(1, '{}')`],
      ['alice', `select pullgate.complete(1, '{}'::json)`],
      ['alice', `select pullgate.complete(1, '{}'::jsonb)`],
      ['conductor', publish],
      ['conductor', 'select id, state from pullgate.jobs'],
      ['conductor', `select pullgate.cancel(1)`],
    ]
    const mayNot: readonly [string, string][] = [
      ['orders', 'select * from pullgate.jobs'],
      ['grafana', publish],
      ['grafana', 'select pullgate.cancel(1)'],
      ['alice', publish],
      ['alice', 'select pullgate.configure(history_days => 7)'],
      ['alice', 'select * from pullgate.job'],
      ['conductor', 'select pullgate.configure(history_days => 7)'],
      ['pullgate_serve', 'select pullgate.configure(history_days => 7)'],
    ]
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    for (const upgraded of [false, true]) {
      if (upgraded) await shell(commandsOfUpgrading(), { DATABASE_URL: url })
      for (const [role, sql] of may) {
        expect(
          await refusal(client, role, sql.replaceAll('(1', upgraded ? '(2' : '(1')),
          `${role}: ${sql}`,
        ).toBe(undefined)
      }
      for (const [role, sql] of mayNot)
        expect(await refusal(client, role, sql), `${role}: ${sql}`).toBe('42501')
    }
    await client.end()
    await runOnce(url, `alter role pullgate_serve${suffix} password 'test'`)
    const own = new URL(url)
    own.username = `pullgate_serve${suffix}`
    own.password = 'test'
    const gateway = await startGatewayProcess({ url: own.href })
    const subscription = await gateway.subscribe('served')
    const pull = gateway.pull(subscription, { wait: 50 })
    await gateway.parked(1)
    await runOnce(url, `select pullgate.publish('served', '{}')`)
    expect((await gateway.settle(jobOf(await pull), 'complete')).status).toBe(200)
  }, 240_000)

  /** The steps of the section that are commands, in their order. */
  function commandsOfUpgrading(): string {
    const steps = sectionOf(page, 'Upgrading').match(/^\d\. .*$/gm) ?? []
    const commands = steps.flatMap((step) => /`(pullgate [a-z]+)`/.exec(step)?.[1] ?? [])
    expect(commands).toEqual(['pullgate migrate', 'pullgate roles'])
    return commands.join('\n')
  }
})

test('a subscription of another name takes over in a rollout, and an ended one leaves its jobs with their executors', async () => {
  const gateway = await gatewayFor(database)
  const [create = '', end = ''] = blocksOf(sectionOf(page, 'Changing a named subscription'), 'sh').map(
    (block) => block.replaceAll('http://127.0.0.1:8080', gateway.url),
  )
  const printed = await shell(`${create}\necho "$old $new"`)
  const [old = '', next = ''] = printed.trim().split(' ')
  const settings = { name: 'workers-v1', topic: 'jobs_myapp_prod', ack: 'explicit', leaseSeconds: 60 }
  expectProblem(
    await gateway.request('POST', '/subscriptions', { json: settings }),
    409,
    'subscription-conflict',
  )

  const [first, second] = [await gateway.publish('jobs_myapp_prod'), await gateway.publish('jobs_myapp_prod')]
  const held = jobOf(await gateway.pull(old, { wait: 50 }))
  expect(held.id).toBe(first)
  const parked = gateway.pull(old, { wait: 50 })
  expect(jobOf(await parked).id).toBe(second)
  await shell(end, { old })
  expectProblem(await gateway.pull(old, { wait: 0 }), 410, 'subscription-ended')
  expect((await gateway.settle(held, 'heartbeat')).status).toBe(200)
  expect((await gateway.settle(held, 'complete')).status).toBe(200)
  const third = await gateway.publish('jobs_myapp_prod')
  expect(jobOf(await gateway.pull(next, { wait: 50 }))).toMatchObject({ id: third, leaseSeconds: 60 })
  // The name is free again.
  expect((await gateway.request('POST', '/subscriptions', { json: settings })).status).toBe(200)
})
