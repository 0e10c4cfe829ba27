import type { Edit } from './lib/build.ts'

/**
 * Gateways with one mechanism broken, to see that the checker notices: copies of the sources with one edit each. The
 * text to replace has to be there exactly once, else the mutant has to be brought up to date.
 */

export type Mutant = {
  readonly name: string
  /** What the checker is to find: a rule. */
  readonly caughtBy: readonly string[]
  readonly edits: readonly Edit[]
  readonly settings?: Readonly<Record<string, string>>
}

const edit = (file: string, find: string, replace: string): Edit => ({ file, find, replace })
const noBackstop = { PULLGATE_BACKSTOP_MS: '60000' }

export const mutants: readonly Mutant[] = [
  {
    name: 'a claimed job is handed out twice',
    caughtBy: ['I1'],
    edits: [
      edit(
        'src/dispatch/hand-out.ts',
        'const taker = group.find(canTake) ?? substitute(topic, group[0], canTake)',
        `const taker = group.find(canTake) ?? substitute(topic, group[0], canTake)
    const other = taker && substitute(topic, taker, (one) => one !== taker && canTake(one))
    if (other !== undefined) shares.set(other, [...(shares.get(other) ?? []), job])`,
      ),
    ],
  },
  {
    name: 'claims do not lock',
    caughtBy: ['I1'],
    edits: [
      edit(
        'sql/functions/claim.sql',
        `          limit v_topic.wanted - cardinality(v_taken)
          for update skip locked);`,
        `          limit v_topic.wanted - cardinality(v_taken));
      perform pg_sleep(0.02);`,
      ),
    ],
  },
  {
    name: 'give-backs are dropped',
    caughtBy: ['I6'],
    edits: [
      edit(
        'src/dispatch/dispatcher.ts',
        'if (remaining.size > 0) deliveries.giveBack',
        'if (remaining.size < 0) deliveries.giveBack',
      ),
    ],
  },
  {
    name: 'a give-back spends the attempt',
    caughtBy: ['I6'],
    edits: [
      edit(
        'sql/functions/claim.sql',
        'p_job.attempts := p_job.attempts - (p_job.unaccepted = 0)::integer;',
        '',
      ),
    ],
  },
  {
    name: 'an offer that is not accepted spends an attempt',
    caughtBy: ['I6'],
    edits: [
      edit(
        'sql/functions/due.sql',
        "state = 'ready', lease_check_at = null, pull_key = null, last_error",
        "state = 'ready', attempts = j.attempts + 1, lease_check_at = null, pull_key = null, last_error",
      ),
    ],
  },
  {
    name: 'confirmed without evidence',
    caughtBy: ['twice'],
    edits: [
      edit(
        'src/http/hand-over.ts',
        'conclude(hadError ? deliveries.doubt : deliveries.confirm)',
        'conclude(hadError ? deliveries.confirm : deliveries.confirm)',
      ),
    ],
  },
  {
    name: 'doubt is a give-back, also under orphan',
    caughtBy: ['I13'],
    edits: [
      edit(
        'sql/functions/claim.sql',
        `when c.state = 'offered' or c.on_lost = 'requeue' and not c.auto_ack then 'undelivered'`,
        `when true then 'undelivered'`,
      ),
    ],
  },
  {
    name: 'every lost job is requeued',
    caughtBy: ['I13', 'jobs'],
    edits: [
      edit('sql/functions/job-rows.sql', `when p_job.on_lost = 'orphan' then 'orphaned'`, ''),
      edit(
        'sql/functions/job-rows.sql',
        `when p_job.on_lost = 'fail' or p_job.attempts`,
        'when p_job.attempts',
      ),
    ],
  },
  {
    name: 'notifications are ignored, without a backstop',
    caughtBy: ['I3'],
    edits: [
      edit(
        'src/dispatch/wakes.ts',
        `return kicks ? dispatcher.kick(topic, 'notification') : 'idle'`,
        `return kicks ? 'idle' : 'idle'`,
      ),
    ],
    settings: noBackstop,
  },
  {
    name: 'a pull that comes again with its key is given nothing',
    caughtBy: ['keys'],
    edits: [
      edit(
        'src/http/routes/pull.ts',
        'else if (jobs.length > 0) answers.respond',
        'else if (jobs.length < 0) answers.respond',
      ),
    ],
  },
  {
    name: 'what a gateway had claimed when it was killed waits for its hold to end',
    caughtBy: ['I3'],
    edits: [
      edit(
        'src/dispatch/peers.ts',
        'const jobs = await store.bury(gateways)',
        'const jobs = await store.bury(gateways.slice(gateways.length))',
      ),
    ],
  },
  {
    name: 'what a claim took whose reply was lost waits for its hold to end',
    caughtBy: ['I3'],
    edits: [
      edit(
        'src/dispatch/unheard-claims.ts',
        'open.add({ claim, looks: 0',
        'if (claimsMax > Infinity) open.add({ claim, looks: 0',
      ),
    ],
  },
  {
    name: 'connections are lost to the pool',
    caughtBy: ['process'],
    edits: [
      edit(
        'src/db/database.ts',
        `client.release()
      return rows`,
        `if (Math.random() > 0.002) client.release()
      return rows`,
      ),
    ],
  },
  {
    name: 'due work is never done',
    caughtBy: ['I3'],
    edits: [
      edit('src/dispatch/due-work.ts', 'if (running || stopped) return', 'if (!running || stopped) return'),
    ],
  },
  {
    name: 'marks pass open transactions',
    caughtBy: ['I3'],
    edits: [
      edit(
        'sql/functions/marks.sql',
        'passed := p_fence is not null and running <@ p_left_out;',
        'passed := p_fence is not null;',
      ),
      edit('src/dispatch/marks.ts', 'const jobsMin = 100', 'const jobsMin = 1'),
    ],
  },
  {
    name: 'a lost lease is answered 200',
    caughtBy: ['I5'],
    edits: [
      edit(
        'src/db/settle-store.ts',
        'return { status, state, dueAt: due_at ?? null }',
        `return { status: status === 'lost' ? 'ok' : status, state, dueAt: due_at ?? null }`,
      ),
    ],
  },
  {
    name: 'leases are not compared',
    caughtBy: ['I5'],
    edits: [
      edit(
        'sql/functions/job-rows.sql',
        'else job.lease = p_lease and job.settled is null and job.state in',
        'else job.state in',
      ),
    ],
  },
  {
    name: 'a settle that is said again is refused',
    caughtBy: ['I5'],
    edits: [
      edit(
        'sql/functions/settle.sql',
        `elsif (v.finished).settled = 'complete'`,
        `elsif false and (v.finished).settled = 'complete'`,
      ),
    ],
  },
  {
    name: 'a lease is over before its time',
    caughtBy: ['I1'],
    edits: [
      edit('sql/functions/due.sql', 'if v_job.lease_ends_at > v_now then', 'if false then'),
      edit(
        'sql/functions/claim.sql',
        'lease_check_at = i.held_until,',
        `lease_check_at = v_now + interval '2 seconds',`,
      ),
    ],
  },
  {
    name: 'a drain goes on claiming',
    caughtBy: ['I10'],
    edits: [
      edit('src/dispatch/dispatcher.ts', 'draining = true', 'draining = false'),
      edit(
        'src/app.ts',
        'await Promise.all([dispatcher.answerAll(spreadMs), heldHeartbeats.drain(spreadMs)])',
        `await new Promise<void>((resolve) => clock.after(5_000, resolve))
      await Promise.all([dispatcher.answerAll(spreadMs), heldHeartbeats.drain(spreadMs)])`,
      ),
    ],
  },
]
