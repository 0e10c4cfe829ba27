import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'

export type Scale = { readonly repeats: number; readonly quick: boolean }

/** One target of the table: measures itself, its floor and its peers in the same run. */
export type Target = {
  readonly id: string
  readonly title: string
  measure(rig: Rig, scale: Scale): Promise<Row[]>
}

export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
