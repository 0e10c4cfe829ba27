export type WaitLimits = { readonly defaultSeconds: number; readonly maxSeconds: number }

/**
 * How long a pull may be held. `?wait` is strict (the schema has refused what is no whole number) and beats Prefer,
 * which is a wish (RFC 7240): an invalid one is ignored. Both are clamped to the maximum. `applied` is the value of
 * Preference-Applied, if Prefer counted.
 */
export function waitOf(
  prefer: string | undefined,
  asked: number | undefined,
  limits: WaitLimits,
): { readonly seconds: number; readonly applied?: string } {
  if (asked !== undefined) return { seconds: Math.min(asked, limits.maxSeconds) }
  const preferred = preferredWait(prefer)
  if (preferred === undefined) return { seconds: Math.min(limits.defaultSeconds, limits.maxSeconds) }
  const seconds = Math.min(preferred, limits.maxSeconds)
  return { seconds, applied: `wait=${seconds}` }
}

/** The first `wait` of the header counts; the header may hold other preferences, and come as several lines. */
function preferredWait(header: string | undefined): number | undefined {
  for (const preference of splitList(header ?? '')) {
    if (!/^\s*wait\s*(?:[=;]|$)/i.test(preference)) continue
    const [, bare, quoted] = /^[^=]*=\s*(?:(\d{1,9})|"(\d{1,9})")\s*(?:;|$)/.exec(preference) ?? []
    const digits = bare ?? quoted
    return digits === undefined ? undefined : Number(digits)
  }
  return undefined
}

/** Splits at commas, those within quotes apart. */
function splitList(header: string): string[] {
  const parts: string[] = []
  let quoted = false
  let start = 0
  for (let at = 0; at < header.length; at += 1) {
    const character = header[at]
    if (character === '"') quoted = !quoted
    else if (character === '\\' && quoted) at += 1
    else if (character === ',' && !quoted) {
      parts.push(header.slice(start, at))
      start = at + 1
    }
  }
  return [...parts, header.slice(start)]
}
