import type pg from 'pg'
import { beforeAll, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { sectionOf, tableOf } from '../support/page.ts'
import {
  complete,
  endLease,
  fail,
  publish,
  release,
  rows,
  runDue,
  runningJob,
  stateOf,
  value,
} from './jobs.ts'
import type { Held } from './jobs.ts'

/** docs/operations.md: what it says of retries and cancels. */
const page = 'docs/operations.md'
const database = useDatabase()
let session: pg.Client
let count = 0
const topic = () => `operations_${(count += 1)}`

beforeAll(async () => {
  session = await database.session()
})

test('the pause after a failed attempt is random, up to what the page says', async () => {
  const lines = sectionOf(page, 'Retries').split('\n')
  const numbers = (start: string) =>
    (lines.find((line) => line.startsWith(`| ${start}`)) ?? '').match(/\d+/g)?.map(Number) ?? []
  const attempts = numbers('after attempt')
  const longest = numbers('longest pause')
  expect(attempts).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
  expect(longest).toHaveLength(9)
  const repeats = 25
  const job = await runningJob(session, topic(), { max_attempts: 100 })
  for (const [n, attempt] of [...attempts, 12].entries()) {
    const bound = longest[n] ?? longest.at(-1) ?? NaN
    const pauses = await pausesAfter(job, attempt, repeats)
    expect(pauses).toHaveLength(repeats)
    expect(Math.min(...pauses.map(({ atLeast }) => atLeast)), `attempt ${attempt}`).toBeGreaterThanOrEqual(1)
    const longestSeen = Math.max(...pauses.map(({ atMost }) => atMost))
    expect(longestSeen, `attempt ${attempt}`).toBeLessThanOrEqual(bound)
    // All in the lower half by chance: once in 2 ** 25 runs.
    expect(longestSeen, `attempt ${attempt}`).toBeGreaterThan(bound / 2)
  }
})

type Pause = { atLeast: number; atMost: number }

/** The pauses of failed attempts, each undone, in seconds: since the statement began, and since the attempt was over. */
async function pausesAfter(job: Held, attempt: number, repeats: number): Promise<readonly Pause[]> {
  await session.query(`create or replace function pg_temp.pause(job_id bigint, lease uuid, attempt integer, out at_least float8, out at_most float8)
    language plpgsql as $$
    begin
      update pullgate.job j set attempts = attempt where j.id = job_id;
      perform pullgate.settle_fails(array[job_id], array[lease], '{broke}', '{true}', array[null]::float8[]);
      select extract(epoch from j.due_at - now()), extract(epoch from j.due_at - clock_timestamp())
        into at_least, at_most from pullgate.job j where j.id = job_id;
      raise exception 'undone' using errcode = 'TEST1';
    exception when sqlstate 'TEST1' then null;
    end $$`)
  return rows<Pause>(
    session,
    `select p.at_least as "atLeast", p.at_most as "atMost"
      from generate_series(1, $4::integer) as n, lateral pg_temp.pause($1 + 0 * n, $2, $3) as p`,
    [job.id, job.lease, attempt, repeats],
  )
}

type Was = (name: string) => Promise<Held>

const unclaimed =
  (options: object): Was =>
  async (name) => ({ id: await publish(session, name, options), lease: '' })
const running =
  (options: object): Was =>
  (name) =>
    runningJob(session, name, options)

/** The page's words for what a job was, and for what happens after the cancel. */
const was: Readonly<Record<string, readonly Was[]>> = {
  'scheduled, ready or offered': [unclaimed({ delay: '1 hour' }), unclaimed({}), running({ offer: 15 })],
  orphaned: [
    async (name) => {
      const job = await runningJob(session, name, { on_lost: 'orphan' })
      await endLease(session, job.id)
      await runDue(session)
      return job
    },
  ],
  running: [running({})],
  'running under `requeue` or `fail`': [running({ on_lost: 'requeue' }), running({ on_lost: 'fail' })],
  'running under `orphan`': [running({ on_lost: 'orphan' })],
}

type Then = (job: Held) => Promise<unknown>
const leaseEnds: Then = async ({ id }) => {
  await endLease(session, id)
  await runDue(session)
}
const then: Readonly<Record<string, Then>> = {
  '': () => Promise.resolve(),
  'the executor completes it': (job) => complete(session, job),
  'the executor fails it, attempts left or not': (job) => fail(session, job),
  'the executor releases it': (job) => release(session, job),
  'its lease ends': leaseEnds,
  '`pullgate.complete` by id': ({ id }) => rows(session, 'select pullgate.complete($1)', [id]),
  '`pullgate.fail` by id': ({ id }) => rows(session, `select pullgate.fail($1, 'no')`, [id]),
}

const cancels = tableOf(sectionOf(page, 'Cancelling')).map(([before = '', after = '', state = '']) => {
  const [event = '', under] = after.split(', under ')
  return { before: under === undefined ? before : `${before} under ${under}`, event, state }
})

test('the table of cancels has every settle', () => {
  const events = cancels.map(({ event }) => event)
  expect(Object.keys(then).filter((event) => !events.includes(event))).toEqual([])
})
test.each(cancels.filter(({ before }) => before !== 'finished'))(
  'a job that was $before, is cancelled, and then "$event", is $state',
  async ({ before, event, state }) => {
    const jobs = was[before]
    const happens = then[event]
    if (jobs === undefined || happens === undefined)
      throw new Error('the page has words that the test does not know')
    for (const start of jobs) {
      const job = await start(topic())
      await rows(session, `select pullgate.cancel($1, 'enough')`, [job.id])
      await happens(job)
      expect(await stateOf(session, job.id)).toBe(state)
    }
  },
)
test('a job that is finished stays as it was when it is cancelled', async () => {
  const job = await runningJob(session, topic())
  await complete(session, job)
  expect(await value(session, 'select pullgate.cancel($1)', [job.id])).toBe('succeeded')
})
