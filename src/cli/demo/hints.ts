/** How a shell reaches the demo's database. */
export type DatabaseHint =
  /** A throw-away server of the demo's own: only its URL may be shown, since it carries a password. */
  | { readonly url: string }
  /** DATABASE_URL of whoever started the demo. */
  | 'environment'
  /** The embedded server that runs on this data directory. */
  | { readonly dataDir: string }

/** What the demo prints when it has started: commands that can be pasted, and how to read its lines. */
export function hintsFor(gateway: string, database: DatabaseHint): string {
  return `
gateway   ${gateway}
metrics   ${gateway}/metrics
topics    ${gateway}/topics
API       ${gateway}/openapi.json

Publish with SQL, pull with HTTP, in another terminal${database === 'environment' ? ' that has DATABASE_URL' : ''}:

  psql ${shellWord(database)} -c "select pullgate.publish('jobs_mine', '{\\"hello\\": \\"world\\"}')"
  id=$(curl -s ${gateway}/subscriptions -H 'Content-Type: application/json' -d '{"topic":"jobs_mine"}' | grep -o '"id":"[^"]*' | cut -c7-)
  curl -s -X PATCH ${gateway}/subscriptions/$id

"again" counts jobs that were handed out before: the demo lets 5 of 100 fail and gives 2 back, on purpose.

Ctrl-C stops.
`
}

function shellWord(database: DatabaseHint): string {
  if (database === 'environment') return '"$DATABASE_URL"'
  if ('url' in database) return quoted(database.url)
  return `"$(PULLGATE_DATA_DIR=${quoted(database.dataDir)} npm run -s url)"`
}

/** One word to any POSIX shell, whatever is in it. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
