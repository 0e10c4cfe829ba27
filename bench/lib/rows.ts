import type { Row } from './report.ts'
import { spread } from './stats.ts'

/** The repeats of one measurement, or why there are none. */
export type Series<T> = { readonly values: readonly T[]; readonly error?: string }

export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error))

/**
 * Takes turns, so that what else the machine does meets all alike. A measurement that breaks is not tried again; the
 * others go on.
 */
export async function takeTurns<T extends Record<string, () => Promise<unknown>>>(
  repeats: number,
  measures: T,
): Promise<{ [K in keyof T]: Series<Awaited<ReturnType<T[K]>>> }> {
  const series: Record<string, { values: unknown[]; error?: string }> = {}
  for (let n = 0; n < repeats; n += 1) {
    for (const [name, measure] of Object.entries(measures)) {
      const own = (series[name] ??= { values: [] })
      if (own.error !== undefined) continue
      try {
        own.values.push(await measure())
      } catch (error) {
        own.error = `${name}: ${messageOf(error)}`
      }
    }
  }
  return series as { [K in keyof T]: Series<Awaited<ReturnType<T[K]>>> }
}

export function pick<T, U>({ values, error }: Series<T>, part: (value: T) => U): Series<U> {
  return { values: values.map(part), ...(error === undefined ? {} : { error }) }
}

/** Per repeat, the least of several series: the better of several peers. */
export function least(...series: Series<number>[]): Series<number> {
  const error = series.find((one) => one.error !== undefined)?.error
  const length = Math.min(...series.map(({ values }) => values.length))
  const values = Array.from({ length }, (_, n) => Math.min(...series.map((one) => one.values[n] ?? NaN)))
  return { values, ...(error === undefined ? {} : { error }) }
}

export type Limit = { readonly atLeast: number } | { readonly atMost: number }

export function meets(value: number, limit: Limit): boolean {
  return 'atLeast' in limit ? value >= limit.atLeast : value <= limit.atMost
}

const shown = (limit: Limit) => ('atLeast' in limit ? `≥ ${limit.atLeast}` : `≤ ${limit.atMost}`)

type Head = { readonly target: string; readonly what: string }

export function broken({ target, what }: Head, error: string): Row {
  return { target, what, error }
}

/** A figure with a limit of its own. */
export function figure(head: Head, own: Series<number>, unit: string, limit: Limit): Row {
  if (own.error !== undefined) return broken(head, own.error)
  const measured = spread(own.values)
  return { ...head, measured, unit, goal: `${shown(limit)} ${unit}`, met: meets(measured.median, limit) }
}

/** A ratio to something else of the same repeat. */
export function ratio(
  head: Head,
  own: Series<number>,
  unit: string,
  reference: Series<number> & { readonly what: string },
  limit: Limit,
): Row {
  const error = own.error ?? reference.error
  if (error !== undefined) return broken(head, error)
  const quotient = spread(own.values.map((value, n) => value / (reference.values[n] ?? NaN)))
  return {
    ...head,
    measured: spread(own.values),
    unit,
    reference: { what: reference.what, value: spread(reference.values) },
    ratio: quotient,
    goal: shown(limit),
    met: meets(quotient.median, limit),
  }
}
