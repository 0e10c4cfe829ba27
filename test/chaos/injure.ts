import { setTimeout as delay } from 'node:timers/promises'
import type { History } from './history.ts'
import type { Child } from './lib/children.ts'
import type { ChaosGateway } from './lib/gateway.ts'
import type { ChaosPostgres } from './lib/postgres.ts'
import type { RoundPlan } from './plan.ts'

/** Carries out the faults of processes and of the way to Postgres. Those of one target come one after the other. */
export type Injuries = {
  inflict(plan: RoundPlan): Promise<void>
  /** How often each was carried out. */
  readonly done: ReadonlyMap<string, number>
}

export type Patients = {
  readonly postgres: ChaosPostgres
  readonly gateways: readonly ChaosGateway[]
  readonly executors: readonly Child[]
  readonly history: History
}

// How long after its end a fault may still show: a statement on a dead connection is given up after 4 s, and a
// listener connects again within seconds.
const echoMs = { process: 1_500, replies: 3_000, link: 6_500, database: 6_500 }
const delayedMs = 400

export function createInjuries({ postgres, gateways, executors, history }: Patients): Injuries {
  const done = new Map<string, number>()
  const busy = new Map<unknown, Promise<void>>()

  /** After whatever else is being done to the target. */
  function alone(target: unknown, act: () => Promise<void>): Promise<void> {
    const turn = (busy.get(target) ?? Promise.resolve()).then(act)
    busy.set(target, turn.catch(() => undefined))
    return turn
  }

  /** Written when it is over, since only then its end is known. */
  async function trouble(
    what: string,
    gateway: ChaosGateway | null,
    echo: number,
    act: () => Promise<void>,
  ): Promise<void> {
    const at = Date.now()
    await act()
    history.write({ kind: 'trouble', at, what, gateway: gateway?.name ?? null, until: Date.now() + echo })
  }

  async function inflict({ fault, faultAtMs, faultMs, ...plan }: RoundPlan): Promise<void> {
    const gateway = gateways[plan.gateway]
    const executor = executors[plan.process]
    if (gateway === undefined || executor === undefined) throw new Error('the plan names nobody')
    // The replies are late before the job is published, and until its executor is gone.
    await delay(fault === 'gone during the claim' ? 250 : faultAtMs)
    const to = (target: unknown, echo: number, act: () => Promise<void>) =>
      alone(target, () => trouble(fault, target === postgres ? null : gateway, echo, act))
    switch (fault) {
      case 'executor stopped':
        await alone(executor, async () => {
          const at = Date.now()
          executor.signal('SIGSTOP')
          await delay(faultMs)
          executor.signal('SIGCONT')
          const until = Date.now() + echoMs.process
          history.write({ kind: 'trouble', at, what: fault, gateway: `x${plan.process}`, until })
        })
        break
      case 'executor killed':
        await alone(executor, async () => {
          history.write({ kind: 'killed', process: `x${plan.process}` })
          executor.signal('SIGKILL')
          await executor.restart()
        })
        break
      case 'gateway killed':
        await to(gateway, echoMs.process, async () => {
          await gateway.kill()
          await gateway.restart()
        })
        break
      case 'gateway drained':
        await to(gateway, echoMs.process, async () => {
          await gateway.drain()
          await gateway.restart()
        })
        break
      case 'gateway stopped':
        await to(gateway, echoMs.process, async () => {
          gateway.signal('SIGSTOP')
          await delay(faultMs)
          gateway.signal('SIGCONT')
        })
        break
      case 'database link cut':
        await to(gateway, echoMs.database, () => Promise.resolve(gateway.database.cut()))
        break
      case 'database link swallows':
        await to(gateway, echoMs.link, async () => {
          gateway.database.swallow()
          await delay(faultMs)
          gateway.database.restore()
        })
        break
      case 'database replies lost':
        await to(gateway, echoMs.link, async () => {
          gateway.database.loseReplies()
          await delay(faultMs / 2)
          gateway.database.restore()
        })
        break
      case 'database link delays':
      case 'gone during the claim':
        await alone(gateway, async () => {
          const at = Date.now()
          gateway.database.delayReplies(delayedMs)
          await delay(1_200)
          const until = Date.now()
          history.write({ kind: 'replies delayed', at, gateway: gateway.name, ms: delayedMs, until })
          history.write({ kind: 'trouble', at, what: fault, gateway: gateway.name, until: until + echoMs.replies })
          gateway.database.delayReplies(0)
        })
        break
      case 'backend terminated':
      case 'backends terminated':
        await to(postgres, echoMs.database, async () => {
          const all = fault === 'backends terminated'
          await postgres.query(
            `select pg_terminate_backend(pid) from (
               select pid from pg_stat_activity where application_name like $1
                 order by hashtext(pid::text) limit $2) p`,
            [all ? 'chaos/g%' : `${gateway.application}%`, all ? 1_000 : 1],
          )
        })
        break
      case 'database restarted fast':
      case 'database restarted immediately':
        await to(postgres, echoMs.database, () =>
          postgres.restart(fault === 'database restarted fast' ? 'fast' : 'immediate'),
        )
        break
      default:
      // Its executor does it by itself, or its connection.
    }
    done.set(fault, (done.get(fault) ?? 0) + 1)
  }

  return { inflict, done }
}
