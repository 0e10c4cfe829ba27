import type { Ack, Entry, OnLost } from '../history.ts'
import type { Change, DatabaseRecord, FinalJob } from '../lib/record.ts'

/** The histories of all processes and the database's record, joined: what the rules look at. */

export type Of<Kind extends Entry['kind']> = Extract<Entry, { kind: Kind }>

/**
 * How a hold of a job ended. `not accepted`: it was an offer, whose time was over. `lost` and `in doubt`: on_lost decided; `finished`: the job with it; `superseded`: it was
 * claimed again while it ran.
 */
export type ClaimEnd =
  | 'given back'
  | 'not accepted'
  | 'released'
  | 'failed'
  | 'lost'
  | 'in doubt'
  | 'confirmed'
  | 'finished'
  | 'retried'
  | 'superseded'

export type Claim = {
  readonly id: string
  readonly at: number
  readonly application: string
  readonly gateway: string
  readonly ack: Ack
  readonly attempt: number
  readonly deliveries: number
  readonly lease: string
  readonly subscription: string
  readonly pullKey: string | null
  readonly offered: boolean
  /** It began as an offer, and no heartbeat has accepted it. */
  unaccepted: boolean
  end: ClaimEnd | undefined
  endAt: number
  /** At its end. */
  leaseEndsAt: number
  attemptAfter: number
  /** Complete answers with it, and the first bytes of others. */
  readonly answers: Delivery[]
  readonly parts: Of<'broken'>[]
}

export type Delivery = { readonly answer: Of<'answer'>; readonly pull: Of<'pull'>; readonly whole: boolean }

export type Job = {
  readonly final: FinalJob
  readonly published: Of<'publish'> | undefined
  readonly onLost: OnLost
  readonly changes: readonly Change[]
  readonly claims: readonly Claim[]
}

export type Pull = {
  readonly asked: Of<'pull'>
  readonly answer: Of<'answer'> | undefined
  readonly broken: Of<'broken'> | undefined
  /** When its answer came, it broke, or its process was killed. */
  readonly endAt: number
}

export type Facts = {
  readonly entries: readonly Entry[]
  readonly record: DatabaseRecord
  readonly jobs: ReadonlyMap<string, Job>
  readonly pulls: ReadonlyMap<string, Pull>
  /** Answers with a job that no claim of the record accounts for. */
  readonly phantoms: readonly { readonly id: string; readonly at: number }[]
  of<Kind extends Entry['kind']>(kind: Kind): Of<Kind>[]
  /** Whether a fault may have touched the gateway, or its way to Postgres, in the time given. */
  troubled(gateway: string, from: number, until: number, but?: readonly string[]): boolean
  /** Of a gateway, of all, or of a process of executors; in the order in which they began. */
  troublesOf(gateway: string, process: string): readonly Of<'trouble'>[]
  /** What happened to a connection that was not in order. */
  brokenness(conn: string): readonly { readonly at: number; readonly what: string }[]
  closed(conn: string): Of<'closed'> | undefined
}

export const gatewayOf = (application: string) => application.split('/')[1] ?? application

export function grouped<T>(from: Iterable<T>, keyOf: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const one of from) {
    const key = keyOf(one)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [one])
    else group.push(one)
  }
  return groups
}

export function joinFacts(entries: readonly Entry[], record: DatabaseRecord): Facts {
  const of = <Kind extends Entry['kind']>(kind: Kind) =>
    entries.filter((entry): entry is Of<Kind> => entry.kind === kind)
  const byId = grouped(record.changes, ({ id }) => id)
  const published = new Map(of('publish').map((one) => [one.key, one]))
  const jobs = new Map(
    record.jobs.map((final): [string, Job] => {
      const changes = byId.get(final.id) ?? []
      const own = published.get(final.key)
      return [
        final.id,
        { final, published: own, onLost: final.onLost, changes, claims: claimsOf(changes, final) },
      ]
    }),
  )
  const byKey = new Map([...jobs.values()].map((job) => [job.final.key, job]))
  const pulls = joinPulls(of)
  const phantoms: { id: string; at: number }[] = []

  for (const { asked: pull, answer, broken } of pulls.values()) {
    for (const job of answer?.jobs ?? []) {
      const claims = jobs.get(job.id)?.claims ?? []
      const claim =
        job.lease === null
          ? claims.findLast(
              (one) =>
                one.ack === 'auto' && one.attempt === job.attempt && one.at <= (answer?.firstByteAt ?? 0) + 1,
            )
          : claims.find((one) => one.lease === job.lease)
      if (claim === undefined || answer === undefined) phantoms.push({ id: job.id, at: answer?.at ?? 0 })
      else claim.answers.push({ answer, pull, whole: job.whole })
    }
    for (const key of broken?.keys ?? []) {
      const from = (broken?.firstByteAt ?? 0) + 1
      const claim = byKey
        .get(key)
        ?.claims.findLast((one) => one.at <= from && gatewayOf(one.application) === pull.gateway)
      if (claim !== undefined && broken !== undefined) claim.parts.push(broken)
    }
  }

  const troubles = of('trouble')
  const broken = brokenConnections(entries, pulls)
  const closed = new Map(of('closed').map((one) => [one.conn, one]))
  return {
    ...{ entries, record, jobs, pulls, phantoms, of },
    troubled: (gateway, from, until, but = []) =>
      troubles.some(
        (one) =>
          (one.gateway === null || one.gateway === gateway) &&
          one.at <= until &&
          one.until >= from &&
          !but.includes(one.what),
      ),
    troublesOf: (gateway, process) =>
      troubles.filter((one) => one.gateway === null || one.gateway === gateway || one.gateway === process),
    brokenness: (conn) => broken.get(conn) ?? [],
    closed: (conn) => closed.get(conn),
  }
}

function joinPulls(of: Facts['of']): Map<string, Pull> {
  const answers = new Map(of('answer').map((one) => [one.pull, one]))
  const brokens = new Map(of('broken').map((one) => [one.pull, one]))
  const killed = of('killed')
  return new Map(
    of('pull').map((asked) => {
      const [answer, broken] = [answers.get(asked.pull), brokens.get(asked.pull)]
      const kill = killed.find((one) => one.process === asked.process && one.at >= asked.at)
      return [asked.pull, { asked, answer, broken, endAt: answer?.at ?? broken?.at ?? kill?.at ?? Infinity }]
    }),
  )
}

function brokenConnections(entries: readonly Entry[], pulls: ReadonlyMap<string, Pull>) {
  const broken = new Map<string, { at: number; what: string }[]>()
  const note = (conn: string, at: number, what: string) => {
    const list = broken.get(conn) ?? []
    list.push({ at, what })
    broken.set(conn, list)
  }
  const byProcess = grouped(pulls.values(), ({ asked }) => asked.process)
  for (const entry of entries) {
    if (entry.kind === 'link') note(entry.conn, entry.at, entry.event)
    if (entry.kind === 'closed' && entry.by !== 'peer') note(entry.conn, entry.at, entry.by)
    if (entry.kind === 'killed') {
      const conns = (byProcess.get(entry.process) ?? []).filter(({ asked }) => asked.at <= entry.at)
      for (const conn of new Set(conns.map(({ asked }) => asked.conn))) {
        // Those that were closed before it died are no worse for it.
        if (!broken.get(conn)?.some(({ what }) => what === 'fin')) note(conn, entry.at, 'killed')
      }
    }
  }
  return broken
}

/** The claims of a job, from its changes in their order. */
function claimsOf(changes: readonly Change[], final: FinalJob): Claim[] {
  const claims: Claim[] = []
  let held: Claim | undefined
  let before: Change | undefined
  const end = (how: ClaimEnd, { at, leaseEndsAt, attempts }: Change) => {
    if (held === undefined) return
    Object.assign(held, { end: how, endAt: at, attemptAfter: attempts })
    if (leaseEndsAt !== null) held.leaseEndsAt = leaseEndsAt
    held = undefined
  }
  for (const change of changes) {
    const { op, state, lease, settled, outcome } = change
    if (op === 'INSERT') {
      // One that was there before has been moved back by retry().
      const last = claims.at(-1)
      if (before !== undefined && last !== undefined) last.end = 'retried'
    } else if (op === 'DELETE') end('finished', change)
    else if ((state === 'running' || state === 'offered') && lease !== null && lease !== before?.lease) {
      end('superseded', change)
      held = newClaim(change, lease)
      claims.push(held)
    } else if (state === 'running' && before?.state !== 'running') {
      // A heartbeat has accepted it, or a late one revived it.
      held = claims.at(-1)
      if (held !== undefined) Object.assign(held, { end: undefined, endAt: Infinity, unaccepted: false })
    } else if (lease === null && before?.lease !== null) {
      held ??= claims.at(-1)
      end(change.deliveries === before?.deliveries ? 'retried' : 'given back', change)
    } else if (settled === 'release' || settled === 'fail') {
      held ??= claims.at(-1)
      end(settled === 'release' ? 'released' : 'failed', change)
    } else if (state === 'delivered') {
      held ??= claims.at(-1)
      end('confirmed', change)
    } else if (state === 'ready' && before?.state === 'offered') end('not accepted', change)
    else if (outcome === 'lost' || outcome === 'in doubt') end(outcome, change)
    before = change
  }
  const last = claims.at(-1)
  if (last?.end === 'finished' && before?.op === 'DELETE') {
    // The job's log is what tells a hold that was lost for good from one that was settled.
    // A hold that was lost and revived has an entry of its own, with another state.
    const told = final.log.findLast((one) => one.lease === last.lease && one.state === final.state)
    if (final.state === 'delivered') last.end = 'confirmed'
    else if (told?.outcome === 'lost' || told?.outcome === 'in doubt') last.end = told.outcome
    else if (told?.outcome === 'failed') last.end = 'failed'
    else if (told?.outcome === 'undeliverable') last.end = 'not accepted'
  }
  return claims
}

function newClaim(
  { id, at, application, ack, attempts, deliveries, leaseEndsAt, subscription, pullKey, state }: Change,
  lease: string,
) {
  // That of an offer is counted when it is accepted.
  const offered = state === 'offered'
  const attempt = attempts + (offered ? 1 : 0)
  return {
    ...{ id, at, application, gateway: gatewayOf(application), ack, attempt, deliveries, lease, offered },
    ...{ subscription: subscription ?? '', pullKey, unaccepted: offered, end: undefined, endAt: Infinity },
    ...{ leaseEndsAt: leaseEndsAt ?? Infinity, attemptAfter: attempts, answers: [], parts: [] },
  } satisfies Claim as Claim
}
