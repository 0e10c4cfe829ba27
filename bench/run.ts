import { parseArgs } from 'node:util'
import { conditions, table, write } from './lib/report.ts'
import type { Row } from './lib/report.ts'
import { startRig } from './lib/rig.ts'
import { p1 } from './targets/p1-wake.ts'
import { p3 } from './targets/p3-publishers.ts'
import { p4 } from './targets/p4-throughput.ts'

/** npm run bench: measures on a Postgres of its own, prints one table, writes bench/results. */
const targets = [p1, p3, p4]

const { values } = parseArgs({
  options: { only: { type: 'string' }, quick: { type: 'boolean', default: false } },
})
const chosen = targets.filter(({ id }) => values.only === undefined || values.only.split(',').includes(id))
if (chosen.length === 0) throw new Error(`--only knows ${targets.map(({ id }) => id).join(', ')}`)

const scale = { quick: values.quick, repeats: values.quick ? 2 : 3 }
const rig = await startRig()
const rows: Row[] = []
try {
  for (const target of chosen) {
    console.log(`${target.id} ${target.title} …`)
    await rig.reset()
    rows.push(...(await target.measure(rig, scale)))
  }
} finally {
  await rig.close()
}
console.log(table(rows))
console.log(`\nwritten to ${write(rows, conditions(rig.postgresVersion, values.quick))}.{json,md}`)
