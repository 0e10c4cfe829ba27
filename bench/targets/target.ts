import type { Row } from '../lib/report.ts'
import type { Rig } from '../lib/rig.ts'

export type Scale = {
  readonly repeats: number
  readonly quick: boolean
  /** Five minutes for what has to be held for five minutes. */
  readonly long: boolean
}

/** A part of a target, with its floor and its peers in the same run. One that throws becomes a row that says so. */
export type Part = {
  readonly what: string
  measure(rig: Rig, scale: Scale): Promise<Row[]>
}

/** One target of the table. */
export type Target = {
  readonly id: string
  readonly title: string
  readonly parts: readonly Part[]
}
