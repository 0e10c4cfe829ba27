import { setTimeout as delay } from 'node:timers/promises'
import { amidClaim } from './faults.ts'
import type { Fault } from './faults.ts'
import type { History } from './history.ts'
import type { Child } from './lib/children.ts'
import type { ChaosGateway } from './lib/gateway.ts'
import type { ChaosPostgres } from './lib/postgres.ts'
import type { RoundPlan } from './plan.ts'

/** Carries out the faults of processes and of the way to Postgres. Those of one target come one after the other. */
export type Injuries = {
  inflict(plan: RoundPlan): Promise<void>
}

export type Patients = {
  readonly postgres: ChaosPostgres
  readonly gateways: readonly ChaosGateway[]
  readonly executors: readonly Child[]
  readonly history: History
}

// How long after its end a fault may still show: a statement on a dead connection is given up after 4 s, and a
// listener connects again within seconds.
const echoMs = { process: 1_500, replies: 1_000, cut: 2_500, link: 6_500, database: 4_000 }
const delayedMs = 400
// Until the job has been published and claimed.
const amidClaimMs = 800

export function createInjuries({ postgres, gateways, executors, history }: Patients): Injuries {
  const busy = new Map<unknown, Promise<void>>()

  /** After whatever else is being done to the target. */
  function alone(target: unknown, act: () => Promise<void>): Promise<void> {
    const turn = (busy.get(target) ?? Promise.resolve()).then(act)
    busy.set(
      target,
      turn.catch(() => undefined),
    )
    return turn
  }

  /** Written when it is over, since only then its end is known. */
  async function trouble(
    what: string,
    gateway: ChaosGateway | null,
    echo: number,
    act: () => Promise<unknown>,
  ): Promise<void> {
    const at = Date.now()
    await act()
    history.write({ kind: 'trouble', at, what, gateway: gateway?.name ?? null, until: Date.now() + echo })
  }

  function stopExecutor(executor: Child, name: string, stoppedMs: number): Promise<void> {
    return alone(executor, async () => {
      const at = Date.now()
      executor.signal('SIGSTOP')
      await delay(stoppedMs)
      executor.signal('SIGCONT')
      const until = Date.now() + echoMs.process
      history.write({ kind: 'trouble', at, what: 'executor stopped', gateway: name, until })
    })
  }

  function killExecutor(executor: Child, name: string): Promise<void> {
    return alone(executor, async () => {
      history.write({ kind: 'killed', process: name })
      executor.signal('SIGKILL')
      await executor.restart()
    })
  }

  function delayReplies(what: Fault, gateway: ChaosGateway): Promise<void> {
    return alone(gateway, async () => {
      const at = Date.now()
      gateway.database.delayReplies(delayedMs)
      await delay(1_600)
      const until = Date.now()
      history.write({ kind: 'replies delayed', at, gateway: gateway.name, ms: delayedMs, until })
      history.write({ kind: 'trouble', at, what, gateway: gateway.name, until: until + echoMs.replies })
      gateway.database.delayReplies(0)
    })
  }

  function terminate(application: string, limit: number): Promise<unknown> {
    return postgres.query(
      `select pg_terminate_backend(pid) from (
         select pid from pg_stat_activity where application_name like $1 order by hashtext(pid::text) limit $2) p`,
      [application, limit],
    )
  }

  /** Those that are not here are carried out by the executor itself, or by its connection's proxy. */
  function actOf({ fault, faultMs, ...plan }: RoundPlan): (() => Promise<void>) | undefined {
    const gateway = gateways[plan.gateway]
    const executor = executors[plan.process]
    if (gateway === undefined || executor === undefined) throw new Error('the plan names nobody')
    const name = `x${plan.process}`
    const toGateway = (echo: number, act: () => Promise<unknown>) => () =>
      alone(gateway, () => trouble(fault, gateway, echo, act))
    const toDatabase = (act: () => Promise<unknown>) => () =>
      alone(postgres, () => trouble(fault, null, echoMs.database, act))
    const killAndRestart = async () => {
      await gateway.kill()
      await gateway.restart()
    }
    const acts: Partial<Record<Fault, () => Promise<void>>> = {
      'gone during the claim': () => delayReplies(fault, gateway),
      'executor stopped': () => stopExecutor(executor, name, faultMs),
      'executor killed': () => killExecutor(executor, name),
      'gateway killed': toGateway(echoMs.process, killAndRestart),
      'gateway killed during the claim': toGateway(echoMs.process, async () => {
        gateway.database.loseReplies()
        await delay(amidClaimMs)
        await killAndRestart()
      }),
      'gateway drained': toGateway(echoMs.process, async () => {
        await gateway.drain()
        await gateway.restart()
      }),
      'gateway stopped': toGateway(echoMs.process, async () => {
        gateway.signal('SIGSTOP')
        await delay(faultMs)
        gateway.signal('SIGCONT')
      }),
      'database link cut': toGateway(echoMs.cut, () => {
        gateway.database.cut()
        return Promise.resolve()
      }),
      'database link swallows': toGateway(echoMs.link, async () => {
        gateway.database.swallow()
        await delay(faultMs)
        gateway.database.restore()
      }),
      'database link delays': () => delayReplies(fault, gateway),
      'database replies lost': toGateway(echoMs.link, async () => {
        gateway.database.loseReplies()
        await delay(faultMs / 2)
        gateway.database.restore()
      }),
      'backend terminated': toGateway(echoMs.cut, () => terminate(`${gateway.application}%`, 1)),
      'backends terminated': toDatabase(() => terminate('chaos/g%', 1_000)),
      'database restarted fast': toDatabase(() => postgres.restart('fast')),
      'database restarted immediately': toDatabase(() => postgres.restart('immediate')),
    }
    return acts[fault]
  }

  return {
    async inflict(plan) {
      await delay(amidClaim.includes(plan.fault) ? 250 : plan.faultAtMs)
      await actOf(plan)?.()
    },
  }
}
