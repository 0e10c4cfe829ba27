import { execFileSync } from 'node:child_process'
import { chownSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import type { EmbeddedPostgres } from '../../src/db/embedded.ts'
import { withClient } from '../../src/db/home.ts'
import { until } from './http.ts'
import type { Scratch } from './postgres.ts'

type Settings = Readonly<Record<string, string>>

/** A streaming standby of the server: a base backup by hand, since the embedded binaries have no pg_basebackup. */
export async function startStandby(
  primary: EmbeddedPostgres,
  scratch: Scratch,
  settings: Settings,
): Promise<EmbeddedPostgres> {
  const dataDir = join(scratch.path, 'standby')
  await withClient(primary.url, async (client) => {
    const { rows: versions } = await client.query<{ old: boolean }>(
      `select current_setting('server_version_num')::integer < 150000 as old`,
    )
    // Until 14 the functions had other names, and the exclusive form as their default.
    const [start, stop] =
      versions[0]?.old === true
        ? [`pg_start_backup('standby', true, false)`, 'pg_stop_backup(false)']
        : [`pg_backup_start('standby', true)`, 'pg_backup_stop(false)']
    await client.query(`select ${start}`)
    execFileSync('cp', ['-a', primary.dataDir, dataDir])
    const { rows } = await client.query<{ labelfile: string }>(`select labelfile from ${stop}`)
    rmSync(join(dataDir, 'postmaster.pid'))
    const { uid, gid } = statSync(dataDir)
    for (const [name, text] of [
      ['backup_label', rows[0]?.labelfile ?? ''],
      ['standby.signal', ''],
    ] as const) {
      writeFileSync(join(dataDir, name), text)
      chownSync(join(dataDir, name), uid, gid)
    }
  })
  const { hostname, port, username, password } = new URL(primary.url)
  const primary_conninfo = `host=${hostname} port=${port} user=${username} password=${password}`
  return scratch.start('standby', { settings: { ...settings, primary_conninfo } })
}

/** Asks a server that may be a standby: `withClient` insists on none, as one server of a URL is not asked. */
async function ask(url: string, sql: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql)
    return Object.values(rows[0] ?? {})[0]
  } finally {
    await client.end()
  }
}

/** Resolves once the standby shows everything that the primary has committed so far. */
export async function caughtUp(primary: { url: string }, standby: { url: string }): Promise<void> {
  const lsn = String(await ask(primary.url, 'select pg_current_wal_lsn()'))
  await until(async () => {
    const replayed = await ask(standby.url, `select pg_last_wal_replay_lsn() >= '${lsn}'::pg_lsn`)
    if (replayed !== true) throw new Error('not yet')
  })
}

export async function promote(standby: { url: string }): Promise<void> {
  await ask(standby.url, 'select pg_promote(true, 60)')
}
