import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { openHistory } from './history.ts'
import { serveOrders } from './orders.ts'
import type { PublishOrder } from './orders.ts'
import { specOf } from './specs.ts'

/** A process of publishers, and of the person who cancels and retries: `publishers.ts HISTORY_FILE`. */

const [, , historyFile = ''] = process.argv
const history = openHistory(historyFile)
const free: pg.Client[] = []

async function session(databaseUrl: string): Promise<pg.Client> {
  const kept = free.pop()
  if (kept !== undefined) return kept
  const client = new pg.Client({
    connectionString: databaseUrl,
    application_name: 'chaos/publisher',
    // As the database says otherwise; but sessions are kept here, as in the pool of an orchestrator.
    options: '-c idle_session_timeout=0',
  })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

const statement = `select pullgate.publish($1, $2::text, priority => $3, delay => $4::interval, dedupe_key => $5,
  max_attempts => $6, on_lost => $7, expires_at => clock_timestamp() + $8::interval) as id`

const ms = (value: number | null) => (value === null || value === 0 ? null : `${value} ms`)

async function publish({ plan, round, topic, person, databaseUrl }: PublishOrder): Promise<void> {
  await delay(plan.startMs)
  const ids: (string | null)[] = plan.jobs.map(() => null)
  let outcome: 'committed' | 'rolled back' | 'unknown' = 'rolled back'
  const client = await session(databaseUrl).catch(() => undefined)
  if (client === undefined) return
  try {
    await client.query('begin')
    for (const [index, job] of plan.jobs.entries()) {
      const { rows } = await client.query<{ id: string }>(statement, [
        ...[topic, specOf(job), job.priority, ms(job.delayMs), job.dedupeKey, job.maxAttempts, job.onLost],
        ms(job.expiresMs),
      ])
      ids[index] = rows[0]?.id ?? null
    }
    if (plan.pauseMs > 0) await delay(plan.pauseMs)
    if (!plan.rollback) outcome = 'unknown'
    await client.query(plan.rollback ? 'rollback' : 'commit')
    if (!plan.rollback) outcome = 'committed'
    free.push(client)
  } catch {
    void client.end().catch(() => undefined)
  }
  for (const [index, { key, onLost, maxAttempts, expiresMs }] of plan.jobs.entries()) {
    history.write({
      ...{ kind: 'publish', round, key, topic, id: ids[index] ?? null, outcome, onLost, maxAttempts },
      expires: expiresMs !== null,
    })
  }
  const id = ids[person?.job ?? 0]
  if (person === null || id === undefined || id === null || outcome !== 'committed') return
  await delay(person.afterMs)
  history.write({ kind: 'person', id, verb: person.verb })
  const again = await session(databaseUrl).catch(() => undefined)
  try {
    await again?.query(`select pullgate.${person.verb}($1)`, [id])
  } catch {
    // PL007 and PL008 are answers too: the job has ended otherwise, or another holds its key.
  }
  if (again !== undefined) free.push(again)
}

serveOrders((what) => (what.kind === 'publish' ? publish(what) : Promise.resolve()))
