import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { gatewayFor, noBackstop } from '../support/gateway.ts'
import { jobOf, until } from '../support/http.ts'

const database = useDatabase()
const fleet = 1_000

/** Puts a counter around pullgate.claim. A sequence counts calls at once, whatever becomes of their transactions. */
async function countClaims(): Promise<() => Promise<number>> {
  const signature = 'pullgate.claim(bigint[], uuid[], integer[], bigint[], bigint[], integer, bigint, uuid[])'
  const [{ definition } = { definition: '' }] = await database.query<{ definition: string }>(
    `select pg_get_function_result('${signature}'::regprocedure) as definition`,
  )
  await database.query('create sequence pullgate.claim_calls minvalue 0 start 0')
  await database.query(`alter function ${signature} rename to counted_claim`)
  await database.query(`
    create function pullgate.claim(
      p_topics bigint[], p_subscriptions uuid[], p_counts integer[], p_lanes bigint[], p_marks bigint[],
      p_gateway integer, p_claim bigint, p_keys uuid[])
      returns ${definition} language plpgsql volatile as $$
      begin
        perform nextval('pullgate.claim_calls');
        return query select * from pullgate.counted_claim(
          p_topics, p_subscriptions, p_counts, p_lanes, p_marks, p_gateway, p_claim, p_keys);
      end $$`)
  return async () =>
    Number(await database.value('select last_value + is_called::integer from pullgate.claim_calls'))
}

test('a publish to 1,000 parked pulls is one delivery and at most two claims; the parked hold nothing', async () => {
  const calls = await countClaims()
  const gateway = await gatewayFor(database, noBackstop)
  const topic = 'one-claim'
  const subscription = await gateway.subscribe(topic)
  const away = new AbortController()
  const answers: string[] = []
  const pulls = Array.from({ length: fleet }, () =>
    gateway.pull(subscription, { wait: 50, signal: away.signal }).then(
      (answer) => void answers.push(answer.status === 200 ? jobOf(answer).id : `HTTP ${answer.status}`),
      () => undefined,
    ),
  )
  await gateway.parked(fleet, subscription)

  // The pool's and the listening one: no more than without anybody parked. The backstop may be asking at this moment;
  // what parked pulls held would stay held.
  await until(async () => {
    const [connections] = await database.query<{ open: number; busy: number }>(
      `select count(*)::integer as open,
          (count(*) filter (where state <> 'idle' or xact_start is not null or backend_xmin is not null))::integer as busy
        from pg_stat_activity where application_name like 'pullgate/%' and datname = current_database()`,
    )
    expect(connections?.busy).toBe(0)
    expect(connections?.open).toBeLessThanOrEqual(11)
    expect(await gateway.metric('pullgate_db_pool_connections', { state: 'active' })).toBe(0)
  })
  // Arrivals share claims as far as they overlap.
  const before = await calls()
  expect(before).toBeLessThanOrEqual(fleet)
  expect(await gateway.metric('pullgate_claims_total')).toBe(before)

  const id = await publish(database, topic)
  await until(async () => expect(await gateway.metric('pullgate_pulls_parked')).toBe(fleet - 1))
  // A try ends after the claims that the publish has caused.
  expect((await gateway.pull(subscription, { wait: 0 })).status).toBe(204)
  expect(answers).toEqual([id])
  // That try's own claim is one of them.
  expect((await calls()) - before).toBeLessThanOrEqual(2 + 1)
  expect(await gateway.metric('pullgate_claims_total')).toBe(await calls())
  expect(await gateway.metric('pullgate_claims_total', { cause: 'arrival', result: 'empty' })).toBe(
    before + 1,
  )
  expect(await gateway.metric('pullgate_claimed_jobs_total')).toBe(1)
  expect(await gateway.metric('pullgate_pulls_total', { outcome: 'jobs' })).toBe(1)

  away.abort()
  await Promise.all(pulls)
  await until(async () => expect(await gateway.metric('pullgate_pulls_parked')).toBe(0))
  expect(await gateway.metric('pullgate_pulls_total', { outcome: 'aborted' })).toBe(fleet - 1)
})
