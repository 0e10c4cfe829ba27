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

/** What is wrong with a database URL; undefined: nothing. Never quotes it. */
export function databaseUrlMistake(url: string): string | undefined {
  const servers = serversOf(url)
  if (!/^postgres(ql)?:\/\//.test(url) || !servers.every((server) => URL.canParse(server)))
    return 'must be a URL that begins with postgres:// or postgresql://'
  const wanted = new URL(servers[0]).searchParams.get('target_session_attrs') ?? 'primary'
  return /^(read-write|primary)$/.test(wanted)
    ? undefined
    : 'target_session_attrs: only the primary will do, so read-write, primary or nothing'
}
