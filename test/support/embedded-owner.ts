import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { endsWithUs } from './children.ts'

/**
 * Another process that starts the embedded server on `dataDir`, in a process group of its own. Its one message is the
 * server's pid.
 */
export function startOwner(dataDir: string, keep: boolean): ChildProcess {
  const module = new URL('../../src/db/embedded.ts', import.meta.url).href
  const code = `
    const { startEmbeddedPostgres } = await import(${JSON.stringify(module)})
    const server = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, keep: ${keep} })
    process.send(server.pid)`
  const args = ['--import', 'tsx', '--input-type=module', '-e', code]
  return endsWithUs(spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 2, 'ipc'], detached: true }))
}

/** SIGKILL for the process and those of its group. */
export async function killGroup(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit')
  if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  await exit
}
