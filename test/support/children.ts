import type { ChildProcess } from 'node:child_process'
import { openGuard } from '../../src/db/embedded-guard.ts'
import type { Guard } from '../../src/db/embedded-guard.ts'

let guard: Guard | undefined

/** The child gets SIGTERM when this process has ended, however it ended. Returns the child. */
export function endsWithUs<Child extends ChildProcess>(child: Child): Child {
  guard ??= openGuard([])
  const exited = new Promise((resolve) => child.once('exit', resolve))
  if (child.pid !== undefined) guard.watch(child.pid, 'TERM', exited)
  return child
}
