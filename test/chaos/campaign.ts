import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { historyOf, judge } from './checker/judge.ts'
import type { Verdict } from './checker/judge.ts'
import { openHistory, readHistory } from './history.ts'
import type { History } from './history.ts'
import { createInjuries } from './injure.ts'
import { buildGateway } from './lib/build.ts'
import type { Edit } from './lib/build.ts'
import { startChild } from './lib/children.ts'
import { startChaosGateway } from './lib/gateway.ts'
import { startChaosPostgres } from './lib/postgres.ts'
import type { ChaosPostgres } from './lib/postgres.ts'
import { readRecord } from './lib/record.ts'
import { setSessions, tellStatistics } from './lib/surround.ts'
import { planDrain, planLosses, planPeace } from './peace.ts'
import { gatewayCount, planRound, processCount } from './plan.ts'
import type { RoundPlan } from './plan.ts'
import { sampleGateways } from './probe.ts'
import { createRounds } from './rounds.ts'
import { planSurroundings } from './surroundings.ts'

/** Rounds under fire, in epochs: after each the fire stops, everything is to come to an end, and all is judged. */

export type CampaignOptions = {
  readonly seed: number
  readonly rounds: number
  readonly epochRounds: number
  /** Rounds under way at once. */
  readonly atOnce: number
  /** Leases that run at the end of an epoch are ended by hand, with nobody left to use them. */
  readonly endLeases: boolean
  /** Whether the database has settings that other sessions than pullgate's would stumble over. */
  readonly oddSessions: boolean
  /** What is broken in the gateways. */
  readonly edits?: readonly Edit[]
  readonly settings?: Readonly<Record<string, string>>
  readonly onEpoch?: (report: Report) => void
  /** No further round begins; those that were run are judged. */
  readonly signal?: AbortSignal
}

export type Report = {
  readonly seed: number
  readonly rounds: number
  readonly seconds: number
  readonly faults: Readonly<Record<string, number>>
  /** How often each was met: epochs with a setting, and with statistics; rounds with statistics, and with heavy specs. */
  readonly surroundings: Readonly<Record<string, number>>
  readonly counts: Readonly<Record<string, number>>
  readonly violations: Verdict['violations']
  /** Where the histories are, if something was violated. */
  readonly directory: string | null
  /** All that is known of the first job that a violation is about. */
  readonly ofOneJob: readonly string[]
}

// The longest that anything waits for: a hold of an automatic acknowledgement (15 s), a late settle, a retry's delay.
const quietMs = 45_000
const stopMs = 20_000
const lagCheckMs = 100
const lagMs = 500

export async function runCampaign(options: CampaignOptions): Promise<Report> {
  const { seed, rounds, epochRounds, atOnce, endLeases } = options
  const startedAt = performance.now()
  const scratch = mkdtempSync(join(tmpdir(), 'pullgate-chaos-history-'))
  let epoch = 0
  const directory = () => join(scratch, `epoch-${epoch}`)
  mkdirSync(directory())
  const undo: (() => Promise<void> | void)[] = []
  const counts = new Map<string, number>()
  const faults = new Map<string, number>()
  const surroundings = new Map<string, number>()
  const met = (what: string) => surroundings.set(what, (surroundings.get(what) ?? 0) + 1)
  let done = 0
  let violations: Verdict['violations'] = []
  let ofOneJob: readonly string[] = []

  const report = (): Report => ({
    ...{ seed, rounds: done, seconds: (performance.now() - startedAt) / 1000, violations },
    faults: Object.fromEntries(faults),
    surroundings: Object.fromEntries(surroundings),
    counts: Object.fromEntries(counts),
    directory: violations.length > 0 ? scratch : null,
    ofOneJob,
  })

  try {
    const { root, migrate, remove } = buildGateway(options.edits)
    undo.push(remove)
    const postgres = await startChaosPostgres(migrate)
    undo.push(postgres.stop)
    const stopped = () => options.signal?.aborted === true
    while (done < rounds && violations.length === 0 && !stopped()) {
      const own = await runEpoch(postgres, root, Math.min(epochRounds, rounds - done))
      for (const [name, count] of Object.entries(own.counts))
        counts.set(name, (counts.get(name) ?? 0) + count)
      violations = own.violations
      options.onEpoch?.(report())
      if (violations.length > 0) break
      rmSync(directory(), { recursive: true })
      epoch += 1
      mkdirSync(directory())
    }
    return report()
  } finally {
    for (const step of undo.toReversed()) await step()
    if (violations.length === 0) rmSync(scratch, { recursive: true, force: true })
  }

  async function runEpoch(postgres: ChaosPostgres, root: string, count: number): Promise<Verdict> {
    const closing: (() => Promise<void> | void)[] = []
    const history = openHistory(join(directory(), 'harness.jsonl'))
    try {
      const settings = options.settings ?? {}
      const around = planSurroundings(seed, epoch, options.oddSessions)
      await setSessions(postgres, around.session)
      await tellStatistics(postgres, around.statistics)
      for (const [name, value] of Object.entries(around.session)) met(`epochs with ${name} = ${value}`)
      met(`epochs that begin with statistics: ${around.statistics}`)
      const [gateways, executors, publisher] = await Promise.all([
        Promise.all(
          Array.from({ length: gatewayCount }, (_, n) =>
            startChaosGateway({
              ...{ name: `g${n}`, root, databaseUrl: postgres.url, history, settings },
              logFile: join(directory(), `g${n}.log`),
            }),
          ),
        ),
        Promise.all(
          Array.from({ length: processCount }, (_, n) =>
            startChild('executors.ts', (life) => [
              `x${n}`,
              String(life),
              join(directory(), `x${n}-${life}.jsonl`),
            ]),
          ),
        ),
        startChild('publishers.ts', () => [join(directory(), 'publisher.jsonl')]),
      ])
      closing.push(...gateways.map((gateway) => gateway.close))
      closing.push(...[...executors, publisher].map((child) => child.stop))
      closing.push(watchLag(history))
      const injuries = createInjuries({ postgres, gateways, executors, history })
      const theRounds = await createRounds({ postgres, gateways, executors, publisher })

      const runUnderFire = async (plan: RoundPlan) => {
        if (plan.statistics !== null) await tellStatistics(postgres, plan.statistics)
        await Promise.all([theRounds.run(plan), injuries.inflict(plan)])
      }

      let next = done
      const last = done + count
      const slot = async () => {
        while (next < last && options.signal?.aborted !== true) {
          const plan = planRound(seed, next++)
          await runUnderFire(plan)
          faults.set(plan.fault, (faults.get(plan.fault) ?? 0) + 1)
          if (plan.heavy) met('rounds with heavy specs')
          if (plan.statistics !== null) met(`rounds with statistics: ${plan.statistics}`)
          done += 1
        }
      }
      await Promise.all(Array.from({ length: atOnce }, slot))

      const settledBy = Date.now() + quietMs
      await theRounds.sweep({ until: settledBy, endLeases })
      for (const gateway of gateways) gateway.executors.restore()
      await Promise.all(planPeace().map((plan) => theRounds.run(plan)))
      await Promise.all(planLosses().map(runUnderFire))
      await runUnderFire(planDrain())
      await theRounds.finish()
      await sampleGateways({ postgres, gateways, history, subscription: theRounds.subscription })
      await Promise.race([
        Promise.all(gateways.map((gateway) => gateway.drain())),
        delay(stopMs, undefined, { ref: false }),
      ])
      for (const child of [...executors, publisher]) await child.stop()
      const record = await readRecord(postgres)
      const entries = readHistory(directory())
      const verdict = judge(entries, record)
      const job = verdict.violations.find((one) => one.job !== null)?.job ?? null
      if (job !== null) ofOneJob = historyOf(entries, record, job)
      if (verdict.violations.length > 0)
        writeFileSync(join(directory(), 'record.json'), JSON.stringify(record))
      return verdict
    } finally {
      for (const step of closing.toReversed()) await step()
      history.close()
    }
  }
}

/** A machine that has no time for this process has none for the others: nothing that is late then is judged. */
function watchLag(history: History): () => void {
  let due = performance.now() + lagCheckMs
  const timer = setInterval(() => {
    const lateMs = performance.now() - due
    due = performance.now() + lagCheckMs
    if (lateMs < lagMs) return
    const at = Math.round(Date.now() - lateMs)
    history.write({ kind: 'trouble', at, what: 'busy machine', gateway: null, until: Date.now() + lagMs })
  }, lagCheckMs)
  return () => clearInterval(timer)
}
