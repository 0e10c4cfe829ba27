import type pg from 'pg'

/**
 * Raw consumers: the same SQL as the gateway, without HTTP. This is the one place that knows the signature of claim.
 * Their publishers stay silent towards gateways and notify a channel of the bench, so that this floor does not
 * depend on when pullgate decides to notify.
 */
export type RawJob = {
  readonly id: string
  readonly lease: string
  readonly jobSpec: string
  readonly attempt: number
}

export const rawChannel = 'bench_raw'
export const silent = 'set pullgate.notify = off'
/** $1: the job spec. */
export const publishSilently = (topic: string) => `select pullgate.publish('${topic}', $1::text) as id`
export const publishAndNotify = (topic: string, channel = rawChannel) =>
  `select pullgate.publish('${topic}', $1::text) as id, pg_notify('${channel}', '')`

export async function subscribeRaw(client: pg.Client, topic: string): Promise<string> {
  const { rows } = await client.query<{ id: string }>(
    `select id from pullgate.subscribe(array[$1], null, 'explicit', 60, null)`,
    [topic],
  )
  return rows[0]?.id ?? ''
}

const claimText = `select c.id, c.lease, c.job_spec as "jobSpec", c.attempt
  from pullgate.claim(array[pullgate.topic_id($1)], array[$2]::uuid[], array[$3]::integer[], '{}', '{}') c where c.id is not null`

export async function claimRaw(
  client: pg.Client,
  topic: string,
  subscription: string,
  count: number,
): Promise<RawJob[]> {
  const values = [topic, subscription, count]
  return (await client.query<RawJob>({ name: 'raw_claim', text: claimText, values })).rows
}

/** What has fallen due becomes ready and is claimed, in one round trip. */
export async function claimDueRaw(client: pg.Client, topic: string, subscription: string): Promise<RawJob[]> {
  // Not run_due, then claim: the commit of run_due is not flushed, and so neither would be that of the claim.
  const text = claimText.replace('pullgate.claim(', `pullgate.claim_due(100, '-infinity', `)
  return (await client.query<RawJob>({ name: 'raw_due', text, values: [topic, subscription, 1] })).rows
}

export async function completeRaw(client: pg.Client, jobs: readonly RawJob[]): Promise<void> {
  await client.query({
    name: 'raw_complete',
    text: 'select count(*) from pullgate.settle_completes($1::bigint[], $2::uuid[], $3::text[])',
    values: [jobs.map(({ id }) => id), jobs.map(({ lease }) => lease), jobs.map(() => null)],
  })
}

export async function heartbeatRaw(client: pg.Client, jobs: readonly RawJob[]): Promise<void> {
  await client.query({
    name: 'raw_heartbeat',
    text: 'select count(*) from pullgate.heartbeats($1::bigint[], $2::uuid[], $3::integer[], $4::text[])',
    // Longer than the lease, as those of executors are that renew what is left of it.
    values: [
      jobs.map(({ id }) => id),
      jobs.map(({ lease }) => lease),
      jobs.map(() => 90),
      jobs.map(() => null),
    ],
  })
}
