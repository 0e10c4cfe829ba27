import pg from 'pg'
import { escaping } from '../domain/database-url.ts'
import { GatewayError } from '../domain/errors.ts'

/** What went wrong with the database at a start, in a sentence that says what to do. */

export type Purpose = 'serve' | 'migrate' | 'roles' | 'doctor'

/** Who may do what, for a role that may not. */
const rights: Record<Purpose, string> = {
  serve: 'a gateway needs a role that is a member of pullgate_gateway (`pullgate roles` creates that)',
  migrate:
    '`pullgate migrate` needs the role that it ran as before, or a member of pullgate_owner; at first one with ' +
    'CREATE on the database',
  doctor: '`pullgate doctor` needs a role that is a member of pullgate_gateway or pullgate_monitor',
  roles: '`pullgate roles` needs a role with CREATEROLE that owns the schema, or a superuser',
}

const bySqlState: Record<string, (message: string, purpose: Purpose) => string> = {
  '28P01': () => 'Postgres refuses the user or the password',
  '28000': (message) =>
    `Postgres refuses the connection: ${message}` +
    (/no encryption|SSL off/.test(message) ? '; add sslmode=require to the URL' : ''),
  '3D000': (message) => `${message}: create it first, with encoding UTF8`,
  '3F000': () => 'the database has no pullgate schema: run `pullgate migrate` first',
  '42501': (message, purpose) => `${message}: ${rights[purpose]}`,
  '55P03': () => 'an open transaction keeps a lock that is needed: run this again when it has ended',
}

const notVerified =
  'the certificate of the server is not signed by a CA that is known here: add sslrootcert=<file> to the URL, or ' +
  'sslmode=require, which does not verify it'

const byCode: Record<string, string> = {
  SELF_SIGNED_CERT_IN_CHAIN: notVerified,
  DEPTH_ZERO_SELF_SIGNED_CERT: notVerified,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: notVerified,
  UNABLE_TO_GET_ISSUER_CERT: notVerified,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: notVerified,
  ERR_TLS_CERT_ALTNAME_INVALID:
    'the certificate of the server is for another host name: connect by that, or use sslmode=verify-ca',
  CERT_HAS_EXPIRED: 'the certificate of the server has expired',
}

const byMessage: readonly (readonly [RegExp, string])[] = [
  [
    /^SASL: .*client password must be/,
    'Postgres asks for a password, and there is none: postgres://user:password@host/name, or PGPASSWORD',
  ],
  [
    /does not support SSL connections/,
    'the server has no TLS, and the connection asks for it: switch TLS on in Postgres, or set sslmode=disable in the ' +
      'URL (PGSSLMODE counts where the URL says nothing)',
  ],
  [/^URI malformed$/, escaping],
]

type Raw = Error & {
  readonly code?: string
  readonly syscall?: string
  readonly hostname?: string
  readonly path?: string
}

/** What pg or Node threw: the first of several, and what a GatewayError stands for. */
function rawOf(error: Error): Raw {
  if (error instanceof GatewayError && error.cause instanceof Error) return rawOf(error.cause)
  // Several addresses of one host, each refused; it has a code and no message.
  if (error instanceof AggregateError) {
    const said = (error.errors as Error[]).map(({ message }) => message).join('; ')
    return Object.assign(new Error(said), { code: (error as Raw).code ?? 'ECONNREFUSED' })
  }
  return error
}

const lookups = ['ENOTFOUND', 'EAI_AGAIN']

/** Whether the server may come yet: it is not reached, starts up, has no place free, or is a standby. */
export function isAway(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false
  const { name, code = '', syscall, message } = rawOf(thrown)
  if (name === 'ReadOnlyServer') return true
  if (thrown instanceof pg.DatabaseError) return /^(57P0[1-3]|53300)$/.test(code)
  return (
    /^(ECONN|EHOST|ENET|ETIMEDOUT|EPIPE)/.test(code) ||
    lookups.includes(code) ||
    (code === 'ENOENT' && syscall === 'connect') ||
    /^(Connection terminated|timeout e)/.test(message)
  )
}

/** `setting`: the key of the configuration that leads to the database. */
export function explain(thrown: Error, setting: string, purpose: Purpose): string {
  const error = rawOf(thrown)
  const { code = '', message } = error
  const known =
    (error instanceof pg.DatabaseError ? bySqlState[code]?.(message, purpose) : byCode[code]) ??
    byMessage.find(([pattern]) => pattern.test(message))?.[1]
  if (known !== undefined) return `${setting}: ${known}`
  if (lookups.includes(code))
    return `${setting}: the host name ${error.hostname ?? ''} is not known (${code})`
  if (code === 'ENOENT' && error.syscall === 'open')
    return `${setting}: cannot read ${error.path ?? 'a file'}`
  return isAway(thrown) ? `${setting}: no Postgres answers there: ${message}` : `${setting}: ${message}`
}

/** An error whose message is the sentence; its cause is what was thrown. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** Rejects with a StartError, unless the work says by itself what to do. */
export async function explained<T>(
  setting: string,
  purpose: Purpose,
  work: () => T | Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof Error) || 'exitCode' in error) throw error
    throw new StartError(explain(error, setting, purpose), { cause: error })
  }
}
