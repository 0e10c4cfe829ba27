import type pg from 'pg'
import { jsonOf, openWire } from './wire.ts'

/** Creates a subscription over HTTP; returns its id. */
export async function subscribe(gateway: string, topic: string, leaseSeconds = 60): Promise<string> {
  const wire = openWire(gateway)
  try {
    const body = JSON.stringify({ topic, ack: 'explicit', leaseSeconds })
    return (jsonOf(await wire.send('POST', '/subscriptions', body)) as { id: string }).id
  } finally {
    wire.close()
  }
}

/** A subscription for each topic, which are created with them. */
export async function subscribeEach(client: pg.Client, topics: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(
    `select s.id from unnest($1::text[]) with ordinality as t (name, position),
      lateral pullgate.subscribe(array[t.name], null, 'explicit', 60, null) s order by t.position`,
    [topics],
  )
  return rows.map(({ id }) => id)
}

/** Registers the topic, by a job that executors of the bench do not count. */
export async function register(client: pg.Client, topic: string): Promise<void> {
  await client.query(`select pullgate.publish('${topic}', '{"n": -1}')`)
}

/** A full queue, made by publish_many. */
export async function fill(client: pg.Client, topic: string, jobs: number): Promise<void> {
  await client.query(
    `select count(*) from pullgate.publish_many($1,
      (select array_agg('{"command": "plan", "n": ' || n || '}') from generate_series(1, $2::integer) n))`,
    [topic, jobs],
  )
  await client.query('analyze pullgate.job')
}

/**
 * Rows straight into the table, silently, for millions. They are ready, or running under leases that end in an hour
 * to eleven.
 */
export async function insertJobs(
  client: pg.Client,
  topic: string,
  state: 'ready' | 'running',
  jobs: number,
): Promise<void> {
  const chunk = 500_000
  await client.query('set pullgate.notify = off')
  for (let done = 0; done < jobs; done += chunk) {
    await client.query(
      `insert into pullgate.job (lane_id, topic_id, state, lease, lease_ends_at, lease_check_at, attempts, job_spec)
        select l.lane_id, l.topic_id, $2,
          case when h.held then gen_random_uuid() end, case when h.held then e.at end, case when h.held then e.at end,
          case when h.held then 1 else 0 end, '{"n": -1}'
        from pullgate.use_lane($1, 0) l, (select $2 = 'running' as held) h,
          generate_series(1, $3::integer) n,
          lateral (select clock_timestamp() + interval '1 hour' + interval '36 milliseconds' * (n % 1000000) as at) e`,
      [topic, state, Math.min(chunk, jobs - done)],
    )
  }
  await client.query('vacuum analyze pullgate.job')
}
