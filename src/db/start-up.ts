import { setTimeout as delay } from 'node:timers/promises'
import type { PoolClient } from 'pg'
import { asError } from '../domain/errors.ts'
import { explain, isAway } from './explain.ts'
import type { Purpose } from './explain.ts'
import { checkSchema } from './migrations.ts'

/** What has to be there before pullgate starts: a server that answers, and a schema that fits. */

/** The database's schema does not fit: `exitCode` 57 if it is newer and breaking, else 1. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError'
  readonly exitCode: number

  constructor(message: string, exitCode: number) {
    super(message)
    this.exitCode = exitCode
  }
}

/** Resolves to the schema's revision; rejects with a SchemaError if this version cannot work on it. */
export async function requireSchema(client: PoolClient): Promise<number> {
  const { state, revision } = await checkSchema(client)
  switch (state) {
    case 'missing':
      throw new SchemaError('the database has no pullgate schema: run `pullgate migrate`', 1)
    case 'older':
      throw new SchemaError(
        `the schema (revision ${revision}) is older than this version: run \`pullgate migrate\``,
        1,
      )
    case 'breaking':
      throw new SchemaError(
        `the schema (revision ${revision}) is too new for this version: upgrade pullgate`,
        57,
      )
    case 'newer':
    case 'current':
      return revision
  }
}

export type Patience = {
  readonly seconds: number
  /** The key of the configuration that leads to the database. */
  readonly setting: string
  readonly purpose: Purpose
  /** Called at the first failure, and when the reason becomes another. */
  readonly onWait: (reason: string) => void
  /** Ends the wait, which rejects then. */
  readonly signal?: AbortSignal | undefined
}

const pauseMs = 500

/** Repeats `work` for so many seconds while the server is away; then, and for every other reason, it rejects. */
export async function whenThere<T>(patience: Patience, work: () => Promise<T>): Promise<T> {
  const { seconds, setting, purpose, onWait, signal } = patience
  const until = performance.now() + seconds * 1000
  let told: string | undefined
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isAway(error) || performance.now() >= until) throw error
      const reason = explain(asError(error), setting, purpose)
      if (reason !== told) onWait(reason)
      told = reason
    }
    await delay(pauseMs, undefined, signal === undefined ? {} : { signal })
  }
}
