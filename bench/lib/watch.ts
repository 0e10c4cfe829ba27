import { readFileSync } from 'node:fs'
import type pg from 'pg'
import type { Rig } from './rig.ts'
import { now } from './time.ts'

const ticksPerSecond = 100
const applicationPattern = 'pullgate/%'

/** Resident memory of a process, in bytes. */
export function residentBytes(pid: number): number {
  const [, kilobytes] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kilobytes) * 1024
}

/** CPU time that a process has used, in seconds; 0 for one that is gone. */
function cpuSeconds(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Fields are counted after the command's name, which may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
  } catch {
    return 0
  }
}

/** The backends that serve gateways. */
export async function gatewayBackends(observer: pg.Client): Promise<number[]> {
  const { rows } = await observer.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name like '${applicationPattern}'`,
  )
  return rows.map(({ pid }) => pid)
}

/** Statements and transactions are one and the same here: neither gateway nor bench uses blocks of several. */
export async function committed(observer: pg.Client): Promise<number> {
  const { rows } = await observer.query<{ commits: string }>(
    `select xact_commit as commits from pg_stat_database where datname = 'postgres'`,
  )
  return Number(rows[0]?.commits)
}

export type Usage = {
  readonly gatewayPercent: number
  readonly backendsPercent: number
  readonly statementsPerSecond: number
  readonly connections: number
}

/**
 * What a gateway and its backends use while `during` runs. Backends report their counts up to a second late, so a
 * short time is off by a statement or two.
 */
export async function measureUsage(
  observer: pg.Client,
  gatewayPid: number,
  during: () => Promise<unknown>,
): Promise<Usage> {
  const backends = await gatewayBackends(observer)
  const used = () => ({
    gateway: cpuSeconds(gatewayPid),
    backends: backends.reduce((sum, pid) => sum + cpuSeconds(pid), 0),
    at: now(),
  })
  const [before, commitsBefore] = [used(), await committed(observer)]
  await during()
  const [after, commitsAfter] = [used(), await committed(observer)]
  const seconds = (after.at - before.at) / 1000
  return {
    gatewayPercent: (100 * (after.gateway - before.gateway)) / seconds,
    backendsPercent: (100 * (after.backends - before.backends)) / seconds,
    statementsPerSecond: (commitsAfter - commitsBefore) / seconds,
    connections: (await gatewayBackends(observer)).length,
  }
}

/** Counts what is sent on the channel of the gateways until asked. */
export async function countNotifications(rig: Rig): Promise<{ perSecond(): Promise<number> }> {
  const listener = await rig.connect()
  await listener.query('listen pullgate_wake')
  let count = 0
  listener.on('notification', () => (count += 1))
  const startedAt = now()
  return {
    async perSecond() {
      const perSecond = (1000 * count) / (now() - startedAt)
      await listener.end()
      return perSecond
    },
  }
}
