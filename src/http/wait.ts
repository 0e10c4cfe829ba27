import type { Request } from 'express'

export type WaitLimits = { readonly defaultSeconds: number; readonly maxSeconds: number }

/**
 * How long a pull may be held. `?wait` is strict (the schema has refused what is no whole number) and beats Prefer,
 * which is a wish (RFC 7240): an invalid one is ignored. Both are clamped to the maximum. `applied` is the value of
 * Preference-Applied, if Prefer counted.
 */
export function waitOf(
  req: Pick<Request, 'get'>,
  asked: number | undefined,
  limits: WaitLimits,
): { readonly seconds: number; readonly applied?: string } {
  if (asked !== undefined) return { seconds: Math.min(asked, limits.maxSeconds) }
  const preferred = preferredWait(req.get('prefer'))
  if (preferred === undefined) return { seconds: Math.min(limits.defaultSeconds, limits.maxSeconds) }
  const seconds = Math.min(preferred, limits.maxSeconds)
  return { seconds, applied: `wait=${seconds}` }
}

/** The first `wait` of the header counts; the header may hold other preferences, and come as several lines. */
function preferredWait(header: string | undefined): number | undefined {
  for (const preference of (header ?? '').split(',')) {
    const [name, value] = (preference.split(';')[0] ?? '').split('=').map((part) => part.trim())
    if (name?.toLowerCase() !== 'wait') continue
    const digits = value?.replace(/^"(.*)"$/, '$1') ?? ''
    return /^\d{1,9}$/.test(digits) ? Number(digits) : undefined
  }
  return undefined
}
