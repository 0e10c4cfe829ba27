import { checkSchema } from '../db/migrations.ts'
import type { Queryable } from '../db/migrations.ts'
import type { Problem } from '../domain/types.ts'

/** Prints what a person should look at in the database. Resolves to the exit code: 0 if all is well, else 1. */
export async function runDoctor(client: Queryable, print: (line: string) => void): Promise<number> {
  const { state, revision } = await checkSchema(client)
  if (state === 'missing' || state === 'older') {
    print(`schema-${state}: run \`pullgate migrate\`, then \`pullgate roles\` if you use the roles`)
    return 1
  }
  if (state === 'breaking') {
    print('schema-breaking: the schema is too new for this version: upgrade pullgate')
    return 1
  }
  const { rows } = await client.query<Problem>('select * from pullgate.doctor()')
  for (const { problem, things, detail } of rows) print(`${problem} (${things}): ${detail}`)
  if (rows.length === 0) print(`schema revision ${revision}: nothing found`)
  return rows.length === 0 ? 0 : 1
}
