import { sslModes } from '../domain/database-url.ts'

/**
 * The URL of a server as node-postgres has to be given it so that `sslmode` and `sslrootcert` mean what they do for
 * libpq: `require` encrypts, and verifies the certificate only if a root certificate is given. By itself pg would verify
 * it in full for all modes, with a warning on stderr. PGSSLMODE and PGSSLROOTCERT count where the URL says nothing.
 */
export function withTlsOfLibpq(server: string, environment: NodeJS.ProcessEnv = process.env): string {
  const [base = '', query = ''] = server.split(/\?(.*)/s)
  const parameters = new URLSearchParams(query)
  // Words of pg's own, which say it all.
  if (parameters.has('ssl') || parameters.has('uselibpqcompat')) return server
  const { PGSSLMODE, PGSSLROOTCERT } = environment
  let mode = parameters.get('sslmode') ?? (PGSSLMODE === '' ? undefined : PGSSLMODE)
  if (mode !== undefined && isSocket(base, parameters)) {
    // libpq ignores the mode there. pg would ask a socket for TLS, also if only PGSSLMODE says so.
    parameters.set('sslmode', 'disable')
    parameters.delete('sslrootcert')
    return `${base}?${parameters.toString()}`
  }
  if (mode === undefined || mode === 'no-verify' || parameters.get('sslmode') === 'disable') return server
  if (!sslModes.includes(mode)) throw new Error(`PGSSLMODE: must be one of ${sslModes.join(', ')}`)
  let root = parameters.get('sslrootcert') ?? (PGSSLROOTCERT === '' ? undefined : PGSSLROOTCERT)
  if (root === 'system') {
    // The CAs that Node knows are what pg takes unless told otherwise.
    root = undefined
    mode = 'verify-full'
  }
  if (mode === 'verify-ca' && root === undefined) {
    throw new Error('sslmode=verify-ca needs sslrootcert=<file>; with a public CA use verify-full')
  }
  // libpq tries without TLS first, and here there is one try.
  parameters.set('sslmode', mode === 'allow' ? 'disable' : mode)
  if (root === undefined || mode === 'disable') parameters.delete('sslrootcert')
  else parameters.set('sslrootcert', root)
  parameters.set('uselibpqcompat', 'true')
  return `${base}?${parameters.toString()}`
}

/** Whether the host is a directory of Unix sockets. */
function isSocket(base: string, parameters: URLSearchParams): boolean {
  const host = parameters.get('host')
  return host === null ? /^[a-z]+:\/\/(?:[^/]*@)?%2f/i.test(base) : host.startsWith('/')
}
