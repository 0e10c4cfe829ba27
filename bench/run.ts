import { execFileSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { conditions, table, write } from './lib/report.ts'
import type { Row } from './lib/report.ts'
import { startRig } from './lib/rig.ts'
import type { Rig } from './lib/rig.ts'
import { broken, messageOf } from './lib/rows.ts'
import { p1 } from './targets/p1-wake.ts'
import { p2 } from './targets/p2-load.ts'
import { p3 } from './targets/p3-publishers.ts'
import { p4 } from './targets/p4-throughput.ts'
import { p5 } from './targets/p5-parked.ts'
import { p6 } from './targets/p6-flat.ts'
import { p7 } from './targets/p7-gateways.ts'
import { p8 } from './targets/p8-due.ts'
import type { Part, Scale } from './targets/target.ts'

/** npm run bench: measures on a Postgres of its own, prints one table, writes bench/results. */
const targets = [p1, p2, p3, p4, p5, p6, p7, p8]

const usage = 'usage: npm run bench -- [--only p1,p2,…] [--quick | --long]'
const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    long: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false, short: 'h' },
  },
})
if (values.help) {
  console.log(usage)
  process.exit(0)
}
const chosen = targets.filter(({ id }) => values.only === undefined || values.only.split(',').includes(id))
if (chosen.length === 0) throw new Error(`--only knows ${targets.map(({ id }) => id).join(', ')}`)

const scale: Scale = { quick: values.quick, long: values.long, repeats: values.quick ? 2 : 3 }
const mode = values.quick
  ? 'quick: fewer and shorter repeats, for a look only'
  : values.long
    ? 'long'
    : 'full'
const startedAt = performance.now()
const elapsed = () => `${Math.round((performance.now() - startedAt) / 1000)} s`

async function measure(rig: Rig, target: string, part: Part): Promise<Row[]> {
  try {
    await rig.reset()
    return await part.measure(rig, scale)
  } catch (error) {
    return [broken({ target, what: part.what }, messageOf(error))]
  } finally {
    await rig.tidy()
  }
}

// What users run, and tsx's loader would count in the gateway's memory.
execFileSync('npm', ['run', '--silent', 'build'], {
  cwd: new URL('../', import.meta.url),
  stdio: 'inherit',
})
const rig = await startRig()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void rig.close().finally(() => process.exit(1)))
}
const rows: Row[] = []
try {
  for (const target of chosen) {
    for (const part of target.parts) {
      console.log(`${elapsed()} ${target.id} ${target.title}: ${part.what} …`)
      rows.push(...(await measure(rig, target.id, part)))
    }
  }
} finally {
  await rig.close()
}
console.log(table(rows))
const minutes = Math.round((performance.now() - startedAt) / 6_000) / 10
console.log(`\nwritten to ${write(rows, conditions(rig.postgresVersion, mode, minutes))}.{json,md}`)
