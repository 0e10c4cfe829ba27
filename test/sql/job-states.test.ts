import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { jobEvents, jobStates, jobSteps, type JobEvent, type JobState } from '../../src/domain/job-states.ts'
import { useDatabase } from '../support/database.ts'
import {
  byLease,
  claim,
  complete,
  endLease,
  fail,
  heartbeat,
  publish,
  type PublishOptions,
  readJob,
  release,
  rows,
  runDue,
  runningJob,
  stateOf,
  subscribe,
  type SubscribeOptions,
} from './jobs.ts'

/** Every event is put to jobs in every state, brought there in each way that could matter. */
const database = useDatabase()
let session: pg.Client

beforeAll(async () => {
  session = await database.session()
})

type Job = { id: string; lease: string; topic: string }
let count = 0
const nobody = '00000000-0000-4000-8000-000000000000'

async function published(options: PublishOptions = {}): Promise<Job> {
  const topic = `state_${++count}`
  return { id: await publish(session, topic, options), lease: nobody, topic }
}
async function running(options: PublishOptions & SubscribeOptions = {}): Promise<Job> {
  const topic = `state_${++count}`
  return { ...(await runningJob(session, topic, options)), topic }
}
const offered = (options: PublishOptions = {}) => running({ ...options, offer: 15 })
/** As if 19 offers before this one had not been accepted. */
const unacceptedBefore = async (job: Job) =>
  rows(session, 'update pullgate.job set unaccepted = 20, deliveries = 20 where id = $1', [job.id])
const endOffer = async (job: Job) => {
  await endLease(session, job.id)
  await runDue(session)
}
const byId = (verb: string) => async (job: Job) => {
  const failArguments = verb === 'fail' ? `, 'broke'` : ''
  await rows(session, `select pullgate.${verb}($1${failArguments})`, [job.id])
}
/** Refused by name is unchanged as well. */
const refusable = (work: (job: Job) => Promise<unknown>) => async (job: Job) => {
  await work(job).catch((error: unknown) => expect(error).toMatchObject({ code: 'PL007' }))
}
const confirm = async (job: Job) => byLease(session, 'confirm', [job])
const doubt = async (job: Job) => byLease(session, 'doubt', [job])
const expire = async (job: Job) => {
  await rows(session, `update pullgate.job set expires_at = clock_timestamp() where id = $1`, [job.id])
  await runDue(session)
}
async function after<T extends Job>(
  job: Promise<T>,
  ...steps: ((job: Job) => Promise<unknown>)[]
): Promise<Job> {
  const made = await job
  for (const step of steps) await step(made)
  return made
}

const makers: Record<JobState, (() => Promise<Job>)[]> = {
  scheduled: [
    () => published({ delay: '1 hour' }),
    () => after(running(), (job) => fail(session, job, { after: 60 })),
    () => after(running(), (job) => release(session, job, 60)),
  ],
  ready: [
    () => published(),
    () => after(running({ ack: 'auto' }), doubt),
    () => after(running({ max_attempts: 2 }), doubt),
    () => after(offered(), endOffer),
    () => after(running(), (job) => release(session, job)),
    () => after(running(), (job) => byLease(session, 'give_back', [job])),
  ],
  offered: (['requeue', 'orphan', 'fail'] as const).flatMap((on_lost) => [
    () => offered({ on_lost }),
    () => offered({ on_lost, max_attempts: 1 }),
    () => after(offered({ on_lost }), unacceptedBefore),
  ]),
  running: (['requeue', 'orphan', 'fail'] as const).flatMap((on_lost) =>
    (['auto', 'explicit'] as const).flatMap((ack) => [
      () => running({ on_lost, ack }),
      () => running({ on_lost, ack, max_attempts: 1 }),
      () => after(running({ on_lost, ack }), byId('cancel')),
    ]),
  ),
  delivered: [
    () => after(running({ ack: 'auto' }), confirm),
    () => after(running({ ack: 'auto', dedupe_key: 'k' }), confirm),
  ],
  orphaned: (['auto', 'explicit'] as const).flatMap((ack) => [
    () => after(running({ on_lost: 'orphan', ack }), doubt),
    () => after(running({ on_lost: 'orphan', ack, max_attempts: 1 }), doubt),
    () => after(running({ on_lost: 'orphan', ack }), byId('cancel'), doubt),
  ]),
  succeeded: [
    () => after(running(), (job) => complete(session, job)),
    () => after(published(), byId('complete')),
  ],
  failed: [
    () => after(running(), (job) => fail(session, job, { retry: false })),
    () => after(published(), byId('fail')),
  ],
  cancelled: [
    () => after(published(), byId('cancel')),
    () => after(running(), byId('cancel'), (job) => release(session, job)),
  ],
  expired: [() => after(published(), expire)],
}

const drivers: Record<JobEvent, ((job: Job) => Promise<unknown>)[]> = {
  due: [
    async (job) => {
      const sql = `update pullgate.job set due_at = clock_timestamp() where id = $1 and state = 'scheduled'`
      await rows(session, sql, [job.id])
      await runDue(session)
    },
  ],
  claim: [
    async (job) => claim(session, job.topic, await subscribe(session, job.topic), 5),
    async (job) => claim(session, job.topic, await subscribe(session, job.topic, { offer: 5 }), 5),
  ],
  'give back': [(job) => byLease(session, 'give_back', [job])],
  confirm: [confirm],
  heartbeat: [(job) => heartbeat(session, job), (job) => heartbeat(session, job, 10)],
  complete: [
    (job) => complete(session, job),
    (job) => complete(session, { ...job, lease: null }),
    refusable(byId('complete')),
  ],
  fail: [
    (job) => fail(session, job, { after: 60 }),
    (job) => fail(session, job, { after: 0 }),
    (job) => fail(session, job, { retry: false }),
    (job) => fail(session, { ...job, lease: null }),
    refusable(byId('fail')),
  ],
  release: [
    (job) => release(session, job),
    (job) => release(session, job, 60),
    (job) => release(session, { ...job, lease: null }),
  ],
  lost: [
    doubt,
    async (job) => {
      if (/running|offered/.test(String(await stateOf(session, job.id)))) await endLease(session, job.id)
      await runDue(session)
    },
  ],
  expire: [expire],
  cancel: [byId('cancel')],
  retry: [refusable(byId('retry'))],
  'set aside': [
    (job) => rows(session, `select pullgate.set_aside($1, '23505', 'some_constraint')`, [job.id]),
  ],
}

describe.each(jobStates)('%s', (state) => {
  test('is where its makers bring a job', async () => {
    for (const make of makers[state]) expect(await stateOf(session, (await make()).id)).toBe(state)
  })
  test.each(jobEvents)('on %s goes where the table says, and reaches all of it', async (event) => {
    const listed = jobSteps[state][event] ?? []
    const reached = new Set<unknown>()
    for (const make of makers[state]) {
      for (const drive of drivers[event]) {
        const job = await make()
        const before = await readJob(session, job.id)
        await drive(job)
        const now = await readJob(session, job.id)
        reached.add(now['state'])
        // A running job is told of a cancel, and renewed.
        if (listed.length > 0 || state === 'running') continue
        expect({ ...now, expires_at: null }).toEqual({ ...before, expires_at: null })
      }
    }
    reached.delete(state)
    expect([...reached].sort()).toEqual([...listed].filter((to) => to !== state).sort())
  })
})
