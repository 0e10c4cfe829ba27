import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import type { EmbeddedPostgres } from '../../../src/db/embedded.ts'
import { withClient } from '../../../src/db/home.ts'
import { openScratch } from '../../support/postgres.ts'

/** A Postgres of its own, that can be restarted under everybody, and its own record of what became of each job. */
export type ChaosPostgres = {
  readonly url: string
  query<Row extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]>
  /** `immediate` is what a crash leaves: the next start recovers. */
  restart(mode: 'fast' | 'immediate'): Promise<void>
  stop(): Promise<void>
}

/**
 * Every change of a job's state, lease or counts, in the transaction that makes it, with the gateway's name: what claims
 * there were and how each ended. The order of a job's rows is that of its changes, as each holds the job's lock.
 */
const audit = `
  create schema chaos;
  create table chaos.audit (
    seq bigserial primary key, at timestamptz not null default clock_timestamp(), application text, op text,
    id bigint, state text, attempts integer, deliveries integer, lease uuid, settled text,
    lease_ends_at timestamptz, auto_ack boolean, subscription_id uuid, pull_key uuid, outcome text);
  create function chaos.note() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
  declare
    j pullgate.job := case tg_op when 'DELETE' then old else new end;
  begin
    if tg_op <> 'UPDATE' or (new.state, new.attempts, new.deliveries) <> (old.state, old.attempts, old.deliveries)
      or (new.lease, new.settled) is distinct from (old.lease, old.settled)
    then
      insert into chaos.audit (application, op, id, state, attempts, deliveries, lease, settled, lease_ends_at,
          auto_ack, subscription_id, pull_key, outcome)
        values (current_setting('application_name'), tg_op, j.id, j.state, j.attempts, j.deliveries, j.lease,
          j.settled, j.lease_ends_at, j.auto_ack, j.subscription_id, j.pull_key,
          case when tg_op = 'UPDATE' and new.log <> old.log then new.log -> -1 ->> 'outcome' end);
    end if;
    return null;
  end $$;
  create trigger chaos_note after insert or update or delete on pullgate.job
    for each row execute function chaos.note();`

const settings = { fsync: 'off', max_connections: '100', shared_buffers: '64MB', max_wal_size: '512MB' }

const triesMax = 50

export async function startChaosPostgres(migrate: (url: string) => Promise<void>): Promise<ChaosPostgres> {
  const scratch = openScratch('chaos')
  const start = (port?: number) =>
    scratch.start('data', { settings, ...(port === undefined ? {} : { port }) })
  let server: EmbeddedPostgres = await start()
  const { url } = server
  try {
    await migrate(url)
    await withClient(url, (client) => client.query(audit))
  } catch (error) {
    await server.stop()
    scratch.remove()
    throw error
  }
  let admin: pg.Client | undefined

  async function connected(): Promise<pg.Client> {
    if (admin !== undefined) return admin
    const client = new pg.Client({
      connectionString: url,
      application_name: 'chaos/admin',
      // The harness is not what is tried.
      options: '-c idle_session_timeout=0 -c default_transaction_isolation=read\\ committed',
    })
    client.on('error', () => (admin = undefined))
    await client.connect()
    return (admin = client)
  }

  async function ask<Row extends pg.QueryResultRow>(sql: string, values: unknown[]): Promise<Row[]> {
    // It may be restarting: everything that is asked here may be asked again.
    for (let tries = 0; ; tries += 1) {
      try {
        return (await (await connected()).query<Row>(sql, values)).rows
      } catch (error) {
        admin = undefined
        if (tries >= triesMax || (error instanceof pg.DatabaseError && !/^57/.test(error.code ?? '')))
          throw error
        await delay(200)
      }
    }
  }
  // Rounds ask at the same time, and a client does one thing after the other.
  let turn: Promise<unknown> = Promise.resolve()

  return {
    url,
    query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []) {
      const answer = turn.then(() => ask<Row>(sql, values))
      turn = answer.catch(() => undefined)
      return answer
    },
    async restart(mode) {
      admin = undefined
      if (mode === 'immediate') process.kill(server.pid, 'SIGQUIT')
      else process.kill(server.pid, 'SIGINT')
      await server.exited
      server = await start(Number(new URL(url).port))
    },
    async stop() {
      await admin?.end().catch(() => undefined)
      await server.stop()
      scratch.remove()
    },
  }
}
