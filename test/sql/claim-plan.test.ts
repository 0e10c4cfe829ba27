import { randomUUID } from 'node:crypto'
import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { claim, claimDue, publish, rows, runDue, subscribe } from './jobs.ts'
import { explainedAnew, explainedSession } from './plans.ts'
import type { Explained } from './plans.ts'

/**
 * The plans of the very statements inside the functions, as auto_explain reports them. Each is looked at twice: in a
 * session that planned it on an empty table and keeps that generic plan, and in one that plans it on the full one.
 */
const database = useDatabase()
const jobs = 60_000
const sorted = /Sort Key: .*(seq|due_at|lease_check_at|expires_at)/

let subscription = ''
async function exercise(session: pg.Client): Promise<void> {
  await claim(session, 'plan', subscription, 3)
  const key = randomUUID()
  await rows(
    session,
    `select * from pullgate.claim(array[pullgate.topic_id($1)], array[$2::uuid], '{2}', '{}', '{}', p_keys => array[$3::uuid])`,
    ['plan', subscription, key],
  )
  await rows(session, `select * from pullgate.give_again(array[$1::uuid, $2::uuid], '{5,5}')`, [
    key,
    randomUUID(),
  ])
  await runDue(session, 100)
  await claimDue(session, 'plan', subscription)
  await rows(
    session,
    `select * from pullgate.look(array[pullgate.topic_id($1)], '{}', '{}', null, 100, true)`,
    ['plan'],
  )
}

let planned: Explained

beforeAll(async () => {
  subscription = await subscribe(database, 'plan')
  planned = await explainedSession(database)
  await exercise(planned.session)
  // Other lanes and other states, the ones that are looked for among them; no row is due, so each look is whole.
  await publish(database, 'plan', { priority: 1 })
  await publish(database, 'other')
  await database.query(
    `insert into pullgate.job (lane_id, topic_id, state, due_at, lease_check_at, lease_ends_at, expires_at, job_spec)
      select l.id, l.topic_id, (array['ready', 'ready', 'scheduled', 'running', 'delivered', 'orphaned'])[n % 6 + 1],
          now() + interval '1 day', case when n % 6 in (3, 4) then now() + interval '1 day' end,
          case when n % 6 in (3, 4) then now() + interval '1 day' end, now() + interval '2 days', '1'
        from generate_series(1, $1) n
        join pullgate.lane l on l.topic = (array['plan', 'other'])[n % 2 + 1]`,
    [jobs],
  )
})

// Whatever is told to the catalogue, statistics too, would make the first session plan again: it comes first.
const kept = () => Promise.resolve(planned)
const fresh = () => explainedAnew(database)

describe.each([
  ['planned on an empty table', kept],
  ['planned on the full table', fresh],
])('with %s', (_, from) => {
  let plans: string[] = []
  beforeAll(async () => {
    const explained = await from()
    explained.plans.length = 0
    await database.query(
      `update pullgate.job set due_at = now(), lease_check_at = now(), lease_ends_at = now(),
          expires_at = case when state <> 'scheduled' then now() end
        where id in (
          select min(j.id) from pullgate.job j where j.state in ('scheduled', 'running', 'delivered') group by j.state)`,
    )
    await exercise(explained.session)
    plans = explained.plans
  })
  const about = (...words: string[]) => {
    const found = plans.filter((plan) => words.every((word) => plan.includes(word)))
    if (found.length === 0) throw new Error(`no plan of a statement with ${words.join(', ')}`)
    return found.join('\n')
  }

  test('no statement scans the job table', () => {
    expect(plans.length).toBeGreaterThan(8)
    for (const plan of plans) {
      expect(plan).not.toMatch(/Seq Scan on (pullgate\.)?job\b/)
      // By bitmap only for ids and keys that are known.
      expect(plan).not.toMatch(/Bitmap Index Scan on job_(?!pkey|pull_key)/)
    }
  })
  test('a claim picks by job_ready, in its order, and updates by job_pkey', () => {
    const pick = about('for update skip locked', 'lane_id = v_lane')
    expect(pick).toMatch(/Index Scan using job_ready on job/)
    expect(pick).not.toMatch(sorted)
    const take = about('update pullgate.job j set', 'gen_random_uuid')
    expect(take).toMatch(/Index Scan using job_pkey on job/)
    expect(take).not.toMatch(/Hash Join|Merge Join/)
  })
  test('what a key was handed is found by job_pull_key', () => {
    expect(about('j.pull_key = k.key', 'order by j.claimed_at')).toMatch(
      /Index Scan using job_pull_key on job/,
    )
    expect(about('given_again = true')).toMatch(
      /Bitmap Index Scan on job_(pkey|pull_key)|Index Scan using job_(pkey|pull_key) on job/,
    )
  })
  test('what is due is found by its own index, in its order', () => {
    const due = about('j.due_at <= v_now', 'for update skip locked')
    expect(due).toMatch(/Index Scan using job_due on job j/)
    expect(due).not.toMatch(sorted)
    expect(about("update pullgate.job j set state = 'ready'")).toMatch(/Index Scan using job_pkey on job j/)
    const check = about('j.lease_check_at <= v_now')
    expect(check).toMatch(/Index Scan using job_lease_check on job/)
    expect(check).not.toMatch(sorted)
    const expire = about('j.expires_at <= v_now')
    expect(expire).toMatch(/Index Scan using job_expires on job/)
    expect(expire).not.toMatch(sorted)
  })
  test('a look reads the head of each index', () => {
    const ready = about('unnest(p_topics) as t (id)', 'p_ready_ms')
    expect(ready).toMatch(/Index (Only )?Scan using job_ready on job/)
    const due = about('order by d.at')
    for (const index of ['job_due', 'job_lease_check', 'job_expires']) {
      expect(due).toMatch(new RegExp(`Index (Only )?Scan using ${index} on job`))
    }
    // Not a walk through all that ended in the last 14 days.
    const ended = about('ended :=')
    expect(ended).toContain('Index Cond: (ended_at >')
    for (const plan of [ready, due, ended]) expect(plan).not.toContain('Seq Scan')
  })
})
