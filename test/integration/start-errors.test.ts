import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'
import type { EmbeddedPostgres } from '../../src/db/embedded.ts'
import { serverAccount } from '../../src/db/embedded-binaries.ts'
import { withClient } from '../../src/db/home.ts'
import { createRoles, migrate } from '../../src/db/migrations.ts'
import { passTo } from '../support/pass.ts'
import { runOnce, withDatabase } from '../support/postgres.ts'
import { run } from '../../src/cli/commands.ts'
import { certificate, privateKey } from '../support/tls.ts'

// How each command says what keeps it from starting, and what is not to keep it. On a server that asks for passwords, and
// has a certificate that nobody knows.

const dir = mkdtempSync(join(tmpdir(), 'pullgate-start-'))
const [certFile, keyFile] = [join(dir, 'cert.pem'), join(dir, 'key.pem')]
let server: EmbeddedPostgres
const sockets = passTo(() => server.url)

/** The server's URL with another database and user, and with parameters. */
function url(database: string, user = 'postgres', query = ''): string {
  const changed = new URL(withDatabase(server.url, database))
  changed.hostname = 'localhost'
  if (user !== 'postgres') changed.password = 'hunter2'
  changed.username = user
  changed.search = query
  return changed.href
}

beforeAll(async () => {
  chmodSync(dir, 0o755)
  writeFileSync(certFile, certificate)
  writeFileSync(keyFile, privateKey, { mode: 0o600 })
  const { drop, uid, gid } = serverAccount()
  if (drop) chownSync(keyFile, uid, gid)
  server = await startEmbeddedPostgres({
    ...{ dataDir: join(dir, 'data'), keep: false },
    settings: { ssl: 'on', ssl_cert_file: certFile, ssl_key_file: keyFile, fsync: 'off' },
  })
  await runOnce(server.url, 'create database empty')
  await runOnce(server.url, 'create database ready')
  await runOnce(server.url, `create database ascii encoding 'SQL_ASCII' locale 'C' template template0`)
  const ready = withDatabase(server.url, 'ready')
  await withClient(ready, migrate)
  await withClient(ready, createRoles)
  for (const role of ['publisher', 'gateway', 'monitor'])
    await runOnce(ready, `create role a_${role} login password 'hunter2' in role pullgate_${role}`)
  sockets.listen(join(dir, '.s.PGSQL.5432'))
})
afterAll(async () => {
  sockets.close()
  await server.stop()
  rmSync(dir, { recursive: true, force: true, maxRetries: 10 })
})

type Case = readonly [
  what: string,
  args: string,
  environment: () => Readonly<Record<string, string>>,
  says: RegExp,
]
const on = (database: string, user?: string, query?: string) => () => ({
  DATABASE_URL: url(database, user, query),
})

const refused: readonly Case[] = [
  ['an unknown option', '--frob', () => ({}), /^Unknown option '--frob'; see pullgate help$/m],
  [
    'no DATABASE_URL',
    'migrate',
    () => ({}),
    /set DATABASE_URL to the database, .*; that of a running `npm start`: DATABASE_URL=\$\(npm run -s url\)/,
  ],
  [
    'a # in a password',
    'serve',
    () => ({ DATABASE_URL: 'postgres://u:hunter#2@h/d' }),
    /DATABASE_URL: .*# as %23/,
  ],
  [
    'a # after digits',
    'serve',
    () => ({ DATABASE_URL: 'postgres://u:12#hunter2@h/d' }),
    /DATABASE_URL: .*# as %23/,
  ],
  [
    'an escape that is none',
    'migrate',
    () => ({ DATABASE_URL: 'postgres://u:%ff@h/d' }),
    /DATABASE_URL: .*% as %25/,
  ],
  [
    'an unknown sslmode',
    'serve',
    on('ready', 'postgres', 'sslmode=requrie'),
    /DATABASE_URL: sslmode: must be one of/,
  ],
  [
    'an unknown PGSSLMODE',
    'migrate',
    () => ({ ...on('ready')(), PGSSLMODE: 'yes' }),
    /PGSSLMODE: must be one of/,
  ],
  [
    'Postgres away',
    'migrate',
    () => ({ DATABASE_URL: 'postgres://u@127.0.0.1:1/d' }),
    /DATABASE_URL: no Postgres answers there: .*ECONNREFUSED/,
  ],
  [
    'an unknown host',
    'serve',
    () => ({ DATABASE_URL: 'postgres://u@no-such-host.invalid/d' }),
    /DATABASE_URL: the host name no-such-host\.invalid is not known/,
  ],
  [
    'no such directory of sockets',
    'migrate',
    () => ({ DATABASE_URL: 'postgres://u@/d?host=/nowhere' }),
    /DATABASE_URL: no Postgres answers there: .*nowhere/,
  ],
  [
    'no password',
    'serve',
    () => ({ DATABASE_URL: url('ready').replace(/:[^:@]*@/, '@') }),
    /DATABASE_URL: Postgres asks for a password, and there is none/,
  ],
  [
    'a wrong password',
    'migrate',
    () => ({ DATABASE_URL: url('ready').replace(/:[^:@]*@/, ':hunter2@') }),
    /DATABASE_URL: Postgres refuses the user or the password/,
  ],
  ['no such database', 'serve', on('none'), /DATABASE_URL: database "none" does not exist: create it first/],
  [
    'a database that is not UTF8',
    'serve',
    on('ascii'),
    /encoding of the database is SQL_ASCII, and pullgate needs UTF8/,
  ],
  ['no schema', 'serve', on('empty'), /no pullgate schema: run `pullgate migrate`/],
  ['roles before migrate', 'roles', on('empty'), /no pullgate schema: run `pullgate migrate` first/],
  [
    "a publisher's role",
    'serve',
    on('ready', 'a_publisher'),
    /permission denied .*a member of pullgate_gateway/,
  ],
  ["a monitor's role", 'serve', on('ready', 'a_monitor'), /permission denied .*a member of pullgate_gateway/],
  ["a gateway's role", 'migrate', on('empty', 'a_gateway'), /permission denied .*CREATE on the database/],
  ["a gateway's role", 'roles', on('ready', 'a_gateway'), /permission denied .*CREATEROLE/],
  [
    'TLS that the server has not',
    'migrate',
    () => ({ DATABASE_URL: `${inject('serverUrl').replace(/\?.*/, '')}?sslmode=require` }),
    /DATABASE_URL: the server has no TLS, and the connection asks for it: .* set sslmode=disable in the URL/,
  ],
  [
    'a certificate that nobody knows',
    'serve',
    on('ready', 'postgres', 'sslmode=verify-full'),
    /DATABASE_URL: .*not signed by a CA that is known here: add sslrootcert/,
  ],
  [
    'verify-ca without a CA',
    'migrate',
    on('ready', 'postgres', 'sslmode=verify-ca'),
    /sslmode=verify-ca needs sslrootcert/,
  ],
  [
    'no such file of a CA',
    'migrate',
    on('ready', 'postgres', 'sslmode=require&sslrootcert=/nowhere.pem'),
    /DATABASE_URL: cannot read \/nowhere\.pem/,
  ],
]

const taken: readonly Case[] = [
  [
    'sslmode=require and an unknown CA',
    'migrate',
    on('ready', 'postgres', 'sslmode=require'),
    /nothing to do/,
  ],
  ['PGSSLMODE=require', 'migrate', () => ({ ...on('ready')(), PGSSLMODE: 'require' }), /nothing to do/],
  [
    'verify-full with the CA',
    'migrate',
    () => on('ready', 'postgres', `sslmode=verify-full&sslrootcert=${certFile}`)(),
    /nothing to do/,
  ],
  [
    'a directory of sockets',
    'migrate',
    () => ({ DATABASE_URL: `postgres://a_gateway:hunter2@/ready?host=${dir}` }),
    /nothing to do/,
  ],
  [
    'a directory of sockets under PGSSLMODE',
    'migrate',
    () => ({ DATABASE_URL: `postgres://a_gateway:hunter2@/ready?host=${dir}`, PGSSLMODE: 'verify-full' }),
    /nothing to do/,
  ],
  [
    'sslmode=verify-full and a directory of sockets',
    'migrate',
    () => ({ DATABASE_URL: `postgres://a_gateway:hunter2@/ready?host=${dir}&sslmode=verify-full` }),
    /nothing to do/,
  ],
  [
    "the embedded server's URL under PGSSLMODE",
    'migrate',
    () => ({ DATABASE_URL: withDatabase(server.url, 'ready'), PGSSLMODE: 'verify-full' }),
    /nothing to do/,
  ],
]

/** Runs the command in this process: its exit code and all that it says. */
async function outcomeOf(args: string, environment: Readonly<Record<string, string>>) {
  const said: string[] = []
  const warned = (warning: Error) => said.push(String(warning))
  const say = (text: unknown) => void said.push(String(text))
  vi.spyOn(console, 'log').mockImplementation(say)
  vi.spyOn(console, 'error').mockImplementation(say)
  // What pg reads by itself.
  for (const [key, value] of Object.entries(environment)) if (key.startsWith('PG')) vi.stubEnv(key, value)
  const signals = ['SIGTERM', 'SIGINT'].map((name) => ({
    name,
    before: process.listeners(name as 'SIGTERM'),
  }))
  process.on('warning', warned)
  try {
    return { exit: await run([args], { PULLGATE_CONNECT_WAIT_SECONDS: '0', ...environment }), said }
  } catch (error) {
    say(error instanceof Error ? error.message : error)
    return { exit: 1, said }
  } finally {
    process.off('warning', warned)
    // A process that did not start ends; this one goes on.
    for (const { name, before } of signals)
      for (const listener of process.listeners(name as 'SIGTERM'))
        if (!before.includes(listener)) process.off(name, listener)
  }
}
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

describe('refused, in one sentence', () => {
  test.each(refused)('%s: %s', async (_, args, environment, says) => {
    const { exit, said } = await outcomeOf(args, environment())
    expect([exit, said]).toEqual([1, [expect.stringMatching(says)]])
    expect(said[0]).not.toMatch(/Warning|hunter/)
    if (!said[0]?.startsWith('the configuration is not valid')) expect(said[0]).not.toContain('\n')
  })
})

describe('no mistake', () => {
  test.each(taken)('%s: %s', async (_, args, environment, says) => {
    expect(await outcomeOf(args, environment())).toEqual({ exit: 0, said: [expect.stringMatching(says)] })
  })
})
