import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defaultDataDir } from './embedded-binaries.ts'
import { passwordFile } from './embedded.ts'

/**
 * The URL of the embedded server that runs on the data directory (default: that of `npm start` here), for psql. Throws
 * if none runs.
 */
export function runningServerUrl(dataDir: string = defaultDataDir()): string {
  try {
    // The server's own record: its port is the fourth line.
    const port = Number(readFileSync(join(dataDir, 'postmaster.pid'), 'utf8').split('\n')[3])
    const password = readFileSync(join(dataDir, passwordFile), 'utf8')
    return `postgres://postgres:${password}@127.0.0.1:${port}/postgres?sslmode=disable`
  } catch (cause) {
    throw new Error(`no embedded Postgres runs on ${dataDir}: start it with \`npm start\``, { cause })
  }
}
