import type { GatewayStore } from '../domain/ports.ts'
import type { Database, Statement } from './database.ts'
import { ending } from './ended-jobs.ts'

/** What dead gateways, lost sessions and unheard answers leave behind: sql/functions/gateway.sql. */

const statements = {
  bury: ending({ name: 'bury', text: 'select pullgate.bury($1::integer[]) as jobs' }),
  retire: ending({
    name: 'retire',
    text: 'select pullgate.retire($1::integer[], $2, $3::bigint[], $4::uuid[]) as jobs',
  }),
  giveBackUnheard: ending({
    name: 'give_back_unheard',
    text: 'select pullgate.give_back_unheard($1::bigint[], $2::uuid[], $3) as jobs',
  }),
} satisfies Record<string, Statement>

export function createGatewayStore(database: Database): GatewayStore {
  async function jobs(statement: Statement, values: readonly unknown[]): Promise<number> {
    const [row] = await database.query<{ jobs: number }>(statement, values)
    return row?.jobs ?? 0
  }
  return {
    bury: (gateways) => jobs(statements.bury, [gateways]),
    retire: (gateways, heir, held) =>
      jobs(statements.retire, [
        ...[gateways, heir],
        ...[held.map(({ id }) => id), held.map(({ lease }) => lease)],
      ]),
    giveBackUnheard: (claims, seconds) =>
      jobs(statements.giveBackUnheard, [
        claims.map(({ id }) => id),
        [...new Set(claims.flatMap(({ subscriptions }) => subscriptions))],
        seconds,
      ]),
  }
}
