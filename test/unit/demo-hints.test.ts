import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { hintsFor } from '../../src/cli/demo/hints.ts'
import type { DatabaseHint } from '../../src/cli/demo/hints.ts'

const gateway = 'http://127.0.0.1:8080'
const statement = `select pullgate.publish('jobs_mine', '{"hello": "world"}')`

/** Runs a printed line in a shell where each program of `programs` is a script; returns what they print. */
function paste(
  line: string,
  programs: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv = {},
): string {
  const folder = mkdtempSync(join(tmpdir(), 'pullgate-hints-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(folder, name), 0o755)
  }
  const path = `${folder}:${process.env.PATH ?? ''}`
  return execFileSync('sh', ['-c', line], { env: { ...env, PATH: path }, encoding: 'utf8' })
}

function psqlLine(database: DatabaseHint): string {
  const line = /^ *psql .*$/m.exec(hintsFor(gateway, database))?.[0]
  if (line === undefined) throw new Error('there is no psql line')
  return line
}

const psql = { psql: `printf '%s\\n' "$@"` }
const asked = (url: string) => `${url}\n-c\n${statement}\n`

test('the psql line reaches the database that DATABASE_URL names', () => {
  const url = 'postgres://user:p$w@host:5432/db?sslmode=require'
  expect(paste(psqlLine('environment'), psql, { DATABASE_URL: url })).toBe(asked(url))
})
test('the psql line reaches the server that the demo started for itself', () => {
  const url = `postgres://postgres:it's$(x)@127.0.0.1:5432/postgres`
  expect(paste(psqlLine({ url }), psql)).toBe(asked(url))
})
test('the psql line reaches the server that runs on a data directory', () => {
  const npm = `printf 'postgres://%s/%s' "$PULLGATE_DATA_DIR" "$*"`
  const dataDir = `/srv/it's a place`
  expect(paste(psqlLine({ dataDir }), { ...psql, npm })).toBe(asked(`postgres://${dataDir}/run -s url`))
})
test('an id is taken out of the answer of curl', () => {
  const [line = ''] = /^ *id=.*$/m.exec(hintsFor(gateway, 'environment')) ?? []
  const curl = `printf '{"id":"7f3a","topics":["jobs_mine"]}'`
  expect(paste(`${line}; printf %s "$id"`, { curl })).toBe('7f3a')
})
