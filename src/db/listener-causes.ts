import pg from 'pg'
import type { ListenerLossCause } from '../domain/types.ts'
import { ReadOnlyServer } from './session.ts'

/** The session is there, its statements work, and yet no notification of another session arrives. */
export class NotHeard extends Error {
  override readonly name = 'NotHeard'

  constructor() {
    super(
      'statements work, but notifications do not arrive: this leads through a transaction pooler, or to another ' +
        'database; set PULLGATE_LISTEN_DATABASE_URL to a direct connection',
    )
  }
}

export const timedOut = (what: string) => Object.assign(new Error(what), { code: 'ETIMEDOUT' })

/** Names the cause of a listening session's loss, by what was thrown when it was made or when it broke. */
export function causeOf(error: unknown): ListenerLossCause {
  if (error instanceof NotHeard) return 'pooler'
  if (error instanceof ReadOnlyServer) return 'standby'
  // LISTEN is refused during recovery: read_only_sql_transaction.
  if (error instanceof pg.DatabaseError) return error.code === '25006' ? 'standby' : 'server'
  if (!(error instanceof Error)) return 'unknown'
  // Of pg, when the other side closed without an error: at once, or seen by a later statement.
  if (/^(Connection terminated|Client (was closed|has encountered))/.test(error.message)) return 'server'
  // Of the operating system: ECONNREFUSED, ENOTFOUND, ETIMEDOUT …
  return 'code' in error && typeof error.code === 'string' && /^E[A-Z]+/.test(error.code)
    ? 'network'
    : 'unknown'
}
