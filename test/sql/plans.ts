import type pg from 'pg'
import type { TestDatabase } from '../support/database.ts'

export type Explained = { readonly session: pg.Client; readonly plans: string[] }

/** A session that keeps generic plans, with those of all statements it has run, also inside functions. */
export async function explainedSession(database: TestDatabase): Promise<Explained> {
  const session = await database.session()
  const plans: string[] = []
  session.on('notice', ({ message = '' }) => {
    if (message.includes('plan:')) plans.push(message)
  })
  await session.query(`
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on;
    set client_min_messages = log;
    set plan_cache_mode = force_generic_plan`)
  return { session, plans }
}

/** A session that plans on a full table. */
export async function explainedAnew(database: TestDatabase): Promise<Explained> {
  await database.query('vacuum analyze pullgate.job')
  return explainedSession(database)
}
