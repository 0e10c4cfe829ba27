import { parseArgs } from 'node:util'
import { runCampaign } from './campaign.ts'
import type { CampaignOptions, Report } from './campaign.ts'
import { faults } from './faults.ts'

/** `npm run chaos -- --rounds N --seed N`; `--mutant NAME` or `--mutants` try whether the checker notices what is broken. */

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '1000' },
    seed: { type: 'string' },
    'at-once': { type: 'string', default: '24' },
    'epoch-rounds': { type: 'string', default: '1000' },
    mutant: { type: 'string' },
    mutants: { type: 'boolean', default: false },
  },
})

const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
const root = new URL('../../', import.meta.url).pathname

const options: CampaignOptions = {
  ...{ seed, root, rounds: Number(values.rounds), atOnce: Number(values['at-once']), endLeases: false },
  epochRounds: Number(values['epoch-rounds']),
  onEpoch: ({ rounds, seconds }) => console.log(`${rounds} rounds, ${seconds.toFixed(0)} s`),
}

function print({ faults: drawn, counts, violations, rounds, seconds, directory }: Report): void {
  const table = (of: Readonly<Record<string, number>>, names = Object.keys(of).toSorted()) =>
    names.map((name) => `  ${name}: ${of[name] ?? 0}`).join('\n')
  console.log(`seed ${seed}, ${rounds} rounds in ${seconds.toFixed(0)} s`)
  console.log(`faults\n${table(drawn, faults)}\njudged\n${table(counts)}`)
  for (const { rule, what, job, round } of violations.slice(0, 40)) {
    console.log(`VIOLATED ${rule}: ${what}${job === null ? '' : ` (job ${job}, round ${round ?? '?'})`}`)
  }
  if (violations.length > 40) console.log(`… and ${violations.length - 40} more`)
  if (directory !== null) console.log(`histories: ${directory}\nagain: npm run chaos -- --seed ${seed} --rounds ${rounds}`)
}

console.log(`seed ${seed}`)
const report = await runCampaign(options)
print(report)
process.exitCode = report.violations.length === 0 ? 0 : 1
