import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const folder = new URL('../peers/', import.meta.url)

/** The peers have dependencies of their own, installed when they are first needed. */
export function installPeers(): void {
  if (existsSync(new URL('node_modules/.package-lock.json', folder))) return
  execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--silent'], { cwd: folder, stdio: 'inherit' })
}
