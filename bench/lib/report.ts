import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import type { Spread } from './stats.ts'

/** One line of the table. `ratio` is measured ÷ reference within the same repeat; targets are ratios or counts. */
export type Row =
  | {
      readonly target: string
      readonly what: string
      readonly measured: Spread
      readonly unit: string
      readonly reference?: { readonly what: string; readonly value: Spread }
      readonly ratio?: Spread
      readonly goal: string
      readonly met: boolean
    }
  /** A measurement that broke. */
  | { readonly target: string; readonly what: string; readonly error: string }

export type Conditions = Readonly<Record<string, string | number>>

export function conditions(postgresVersion: string, mode: string, minutes: number): Conditions {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim()
  return {
    date: new Date().toISOString(),
    commit,
    node: process.version,
    postgres: `${postgresVersion}, fsync on, synchronous_commit on`,
    machine: `${cpus().length} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), ${Math.round(totalmem() / 2 ** 30)} GiB`,
    shared: 'Postgres, gateway and load generators share the cores',
    mode,
    minutes,
  }
}

function digits(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? 'never' : 'none'
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
const shown = ({ median, min, max }: Spread) => `${digits(median)} (${digits(min)}–${digits(max)})`

function cells(row: Row): string[] {
  if ('error' in row) return [row.target, row.what, `broke: ${row.error}`, '', '', '', 'MISSED']
  return [
    row.target,
    row.what,
    `${shown(row.measured)} ${row.unit}`,
    row.reference === undefined ? '' : `${row.reference.what}: ${shown(row.reference.value)} ${row.unit}`,
    row.ratio === undefined ? '' : shown(row.ratio),
    row.goal,
    row.met ? 'met' : 'MISSED',
  ]
}

const heads = ['target', 'what', 'measured: median (min–max)', 'reference, same run', 'ratio', 'goal', '']

export function table(rows: readonly Row[]): string {
  const lines = [heads, heads.map(() => '---'), ...rows.map(cells)]
  return lines.map((line) => `| ${line.join(' | ')} |`).join('\n')
}

/** Writes bench/results/<date>.json and .md; returns their path without ending. */
export function write(rows: readonly Row[], context: Conditions): string {
  const dir = new URL('../results/', import.meta.url)
  mkdirSync(dir, { recursive: true })
  const name = new URL(String(context.date).replaceAll(/[:.]/g, '-'), dir)
  writeFileSync(`${name.pathname}.json`, `${JSON.stringify({ conditions: context, rows }, null, 2)}\n`)
  const list = Object.entries(context).map(([key, value]) => `- ${key}: ${value}`)
  writeFileSync(`${name.pathname}.md`, `# Bench\n\n${list.join('\n')}\n\n${table(rows)}\n`)
  return name.pathname
}
