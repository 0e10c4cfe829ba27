import pg from 'pg'
import type { TestDatabase } from '../support/database.ts'
import { row, rows, value } from './jobs.ts'
import type { Runner } from './jobs.ts'

/** What a gateway asks about its topics, and what is heard of them, for the tests of arming and of marks. */

export const topicId = (runner: Runner, topic: string) =>
  value(runner, 'select pullgate.topic_id($1)', [topic])

export type Seen = {
  ready_topics: string[]
  ended: string[]
  due_in_ms: number | null
  fence: string | null
  horizon: string
}

/** Names of topics in, names of topics out. */
export async function look(
  runner: Runner,
  topics: string[],
  { fence = false, lanes = [] as string[], marks = [] as string[] } = {},
): Promise<Omit<Seen, 'fence' | 'horizon'> & { fence: bigint; horizon: bigint }> {
  const seen = await row<Seen>(
    runner,
    `select array(
        select t from unnest($1::text[]) as t where pullgate.topic_id(t) = any (l.ready_topics) order by t) as ready_topics,
        l.ended, l.due_in_ms, l.fence::text, l.horizon::text
      from pullgate.look(
        array(select pullgate.topic_id(t) from unnest($1::text[]) as t), $2::bigint[], $3::bigint[], null, 0, $4) as l`,
    [topics, lanes, marks, fence],
  )
  return { ...seen, fence: BigInt(seen.fence ?? -1), horizon: BigInt(seen.horizon) }
}

export const gatewayId = '00000000-0000-4000-8000-0000000000aa'

/** Resolves to the names of the topics that publishers may have taken for unarmed. */
export async function arm(runner: Runner, topics: string[], gateway = gatewayId): Promise<string[]> {
  const armed = await rows<{ topic: string }>(
    runner,
    `with fresh as (
        select pullgate.arm($2, array(select pullgate.topic_id(t) from unnest($1::text[]) as t)) as ids)
      select t as topic from unnest($1::text[]) as t, fresh where pullgate.topic_id(t) = any (fresh.ids) order by t`,
    [topics, gateway],
  )
  return armed.map(({ topic }) => topic)
}

export async function disarm(runner: Runner, topics: string[], gateway = gatewayId): Promise<void> {
  await rows(
    runner,
    'select pullgate.disarm($2, array(select pullgate.topic_id(t) from unnest($1::text[]) as t))',
    [topics, gateway],
  )
}

/** Runs a COPY … FROM STDIN with the given data. */
export function copyFrom(session: pg.Client, sql: string, data: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (error?: Error | null) => (error ? reject(error) : resolve())
    session.query(new CopyFrom(sql, data, done))
  })
}

class CopyFrom extends pg.Query {
  readonly #data: string
  constructor(sql: string, data: string, done: (error?: Error | null) => void) {
    super(sql, [], done)
    this.#data = data
  }
  handleCopyInResponse(connection: { sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }): void {
    connection.sendCopyFromChunk(Buffer.from(this.#data))
    connection.endCopyFrom()
  }
}

/** Hears the channel. `during` resolves to the payloads that were sent while `work` ran, in their order. */
export async function ears(database: TestDatabase): Promise<{
  during(work: () => Promise<unknown>): Promise<string[]>
}> {
  const listener: pg.Client = await database.session()
  const heard: string[] = []
  let marks = 0
  let marked: (() => void) | undefined
  listener.on('notification', ({ payload = '' }) => {
    if (payload === `mark ${marks}`) marked?.()
    else heard.push(payload)
  })
  await listener.query('listen pullgate_wake')

  /** Everything notified so far has been heard: notifications keep their order. */
  async function mark(): Promise<void> {
    const seen = new Promise<void>((resolve) => (marked = resolve))
    await database.query(`select pg_notify('pullgate_wake', $1)`, [`mark ${++marks}`])
    await seen
  }
  return {
    async during(work) {
      await mark()
      heard.length = 0
      await work()
      await mark()
      return [...heard]
    },
  }
}
