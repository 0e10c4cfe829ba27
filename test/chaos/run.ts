import { rmSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { runCampaign } from './campaign.ts'
import type { CampaignOptions, Report } from './campaign.ts'
import { faults } from './faults.ts'
import { mutants } from './mutants.ts'
import type { Mutant } from './mutants.ts'

/** `npm run chaos -- --rounds N --seed N`; `--mutant NAME` or `--mutants` try whether the checker notices what is broken. */

const usage =
  'usage: npm run chaos -- [--rounds N] [--seed N] [--at-once N] [--epoch-rounds N] [--plain-sessions] [--verbose] [--mutants | --mutant NAME]'
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '1000' },
    seed: { type: 'string' },
    'at-once': { type: 'string', default: '24' },
    'epoch-rounds': { type: 'string', default: '1000' },
    mutant: { type: 'string' },
    'plain-sessions': { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    mutants: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false, short: 'h' },
  },
})
if (values.help) {
  console.log(usage)
  process.exit(0)
}

const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)

// Otherwise Postgres, which does not hear a Ctrl-C, would stay.
const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stop.abort())

const options: CampaignOptions = {
  signal: stop.signal,
  ...{ seed, rounds: Number(values.rounds), atOnce: Number(values['at-once']), endLeases: false },
  epochRounds: Number(values['epoch-rounds']),
  oddSessions: !values['plain-sessions'],
  onEpoch: ({ rounds, seconds }) => console.log(`${rounds} rounds, ${seconds.toFixed(0)} s`),
}

function print({
  faults: drawn,
  surroundings,
  counts,
  violations,
  rounds,
  seconds,
  directory,
  ofOneJob,
}: Report): void {
  const table = (of: Readonly<Record<string, number>>, names = Object.keys(of).toSorted()) =>
    names.map((name) => `  ${name}: ${of[name] ?? 0}`).join('\n')
  console.log(`seed ${seed}, ${rounds} rounds in ${seconds.toFixed(0)} s`)
  console.log(
    `faults\n${table(drawn, faults)}\nsurroundings\n${table(surroundings)}\njudged\n${table(counts)}`,
  )
  for (const { rule, what, job, round } of violations.slice(0, 40)) {
    console.log(`VIOLATED ${rule}: ${what}${job === null ? '' : ` (job ${job}, round ${round ?? '?'})`}`)
  }
  if (violations.length > 40) console.log(`… and ${violations.length - 40} more`)
  if (ofOneJob.length > 0) console.log(`the first job of these\n${ofOneJob.join('\n')}`)
  if (directory !== null)
    console.log(`histories: ${directory}\nagain: npm run chaos -- --seed ${seed} --rounds ${rounds}`)
}

/** Whether the checker notices, and after how many rounds. */
async function tryMutant({ name, edits, caughtBy, settings = {} }: Mutant): Promise<boolean> {
  const report = await runCampaign({
    ...{
      seed,
      edits,
      settings,
      oddSessions: options.oddSessions,
      rounds: 480,
      epochRounds: 120,
      atOnce: 40,
      endLeases: true,
      signal: stop.signal,
    },
  })
  const rules = new Set(report.violations.map(({ rule }) => rule))
  const caught = caughtBy.some((rule) => rules.has(rule))
  console.log(`| ${name} | ${caught ? 'caught' : 'MISSED'} | ${[...rules].join(', ')} | ${report.rounds} |`)
  if (values.verbose) print(report)
  if (report.directory !== null) rmSync(report.directory, { recursive: true })
  return caught
}

console.log(`seed ${seed}`)
const chosen = mutants.filter(({ name }) => values.mutants || name === values.mutant)
if (values.mutant !== undefined && chosen.length === 0) {
  throw new Error(`no such mutant; there are:\n${mutants.map(({ name }) => `  ${name}\n`).join('')}`)
}
let passed = true
for (const mutant of chosen) if (!stop.signal.aborted) passed = (await tryMutant(mutant)) && passed
if (chosen.length === 0) {
  const report = await runCampaign(options)
  print(report)
  passed = report.violations.length === 0
}
// Connections that nobody closes are part of the test.
process.exit(passed ? 0 : 1)
