import type { JobPlan } from './plan.ts'

/** Job specs that say what they are: of whom, and how long a run of which character follows. */
export type Spec = { readonly k: string; readonly n: number; readonly p: string }

/** `k` comes first, so that it is seen of an answer that breaks off; `n` is the length of `p`. */
export function specOf({ key, specBytes, filling }: JobPlan): string {
  const bytes = Buffer.byteLength(JSON.stringify(filling)) - 2
  const p = filling.repeat(Math.floor(specBytes / bytes))
  return JSON.stringify({ k: key, n: p.length, p } satisfies Spec)
}

/** Of the length that it says, and of one character. */
export function isWhole({ n, p }: Spec): boolean {
  const [filling = ''] = p
  return p.length === n && p === filling.repeat(n / filling.length)
}
