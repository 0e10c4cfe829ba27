import { spawn } from 'node:child_process'
import type { Writable } from 'node:stream'

/** Ends processes and removes directories as soon as this process has ended, however it ended: SIGKILL is no exception. */
export type Guard = {
  /** The process gets the signal then, and SIGKILL 10 s later, unless `exited` has been resolved before. */
  watch(pid: number, signal: 'TERM' | 'QUIT', exited: Promise<unknown>): void
  /** Everything has ended in order: nothing is left to do. */
  release(): void
}

// Reads "+ <pid> <signal>" and "- <pid>". Its input ends with the process that writes it. The arguments are directories to
// remove, each with the drafts beside it.
const script = `
  watched=
  while read -r sign pid signal; do
    rest=
    for one in $watched; do [ "\${one%:*}" = "$pid" ] || rest="$rest $one"; done
    watched=$rest
    [ "$sign" = + ] && watched="$watched $pid:$signal"
  done
  for one in $watched; do kill -s "\${one#*:}" "\${one%:*}"; done
  tries=0
  while [ $tries -lt 100 ]; do
    alive=
    for one in $watched; do kill -0 "\${one%:*}" && alive=yes; done
    [ -z "$alive" ] && break
    tries=$((tries + 1))
    sleep 0.1
  done
  for one in $watched; do kill -s KILL "\${one%:*}"; done
  for directory; do rm -rf -- "$directory" "$directory".owner "$directory".init-*; done`

/**
 * Starts a shell that waits for the end of its input. It has a process group of its own: neither a signal to ours nor
 * Ctrl-C reaches it. `directories` are absolute paths.
 */
export function openGuard(directories: readonly string[]): Guard {
  const shell = spawn('/bin/sh', ['-c', script, 'pullgate-guard', ...directories], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  // In fact a socket.
  const stdin: Writable & { unref?(): void } = shell.stdin
  // A shell that cannot be started, or was killed, guards nothing. Nothing else depends on it.
  shell.on('error', () => undefined)
  stdin.on('error', () => undefined)
  // It must not keep this process alive.
  shell.unref()
  stdin.unref?.()
  return {
    watch(pid, signal, exited) {
      stdin.write(`+ ${pid} ${signal}\n`)
      void exited.then(() => stdin.write(`- ${pid}\n`))
    },
    release: () => void shell.kill('SIGKILL'),
  }
}
