/**
 * The URLs of the servers that a database URL names: `postgres://user:password@host1,host2:5433/db` is two, each with
 * the same user, database and parameters. Their order is kept.
 */
export function serversOf(url: string): readonly [string, ...string[]] {
  // The password ends at the last @: it may hold any character but those that end the authority.
  const [, before = '', hosts = '', rest = ''] = /^([a-z]+:\/\/(?:[^/?#]*@)?)([^/?#]*)([^]*)$/.exec(url) ?? []
  const [first = '', ...others] = hosts.split(',').map((host) => `${before}${host}${rest}`)
  return [first, ...others]
}

/** Those of libpq, and `no-verify` of node-postgres. */
export const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify']

export const escaping =
  'must be a URL whose user and password are escaped: # as %23, % as %25, / as %2F, ? as %3F, @ as %40'

/** The URL of one server, taken apart; undefined: it is none. Its host may be empty, as in `postgres://user@/db?host=/run`. */
function parsed(server: string): URL | undefined {
  const withHost = URL.canParse(server) ? server : server.replace('@/', '@host/')
  return URL.canParse(withHost) ? new URL(withHost) : undefined
}

/** What is wrong with a database URL; undefined: nothing. Never quotes it. */
export function databaseUrlMistake(url: string): string | undefined {
  if (!/^postgres(ql)?:\/\//.test(url)) return 'must be a URL that begins with postgres:// or postgresql://'
  const servers = serversOf(url).map(parsed)
  const [first] = servers
  // Nothing follows a # in such a URL: it belongs to a password.
  if (first === undefined || servers.includes(undefined) || url.includes('#')) return escaping
  const mode = first.searchParams.get('sslmode')
  if (mode !== null && !sslModes.includes(mode)) return `sslmode: must be one of ${sslModes.join(', ')}`
  const wanted = first.searchParams.get('target_session_attrs') ?? 'primary'
  return /^(read-write|primary)$/.test(wanted)
    ? undefined
    : 'target_session_attrs: only the primary will do, so read-write, primary or nothing'
}
