import type { Emit } from '../domain/events.ts'
import type { JobState } from '../domain/job-states.ts'
import type { TopicId } from '../domain/types.ts'
import type { Database, Statement } from './database.ts'

/**
 * A statement that may end jobs. Its first row says in one column more which it ended: pullgate.finish_all notes states
 * and topics in a setting of the transaction, whatever called it. No further statement is needed. The
 * other rows say nothing: the note of a batch may be as long as all its rows.
 */
export function ending(statement: Statement): Statement {
  const { text } = statement
  return {
    ...statement,
    text: `select answer.*,
      case when row_number() over () = 1 then current_setting('pullgate.ended', true) end as ended_jobs
      from (${text}) answer`,
  }
}

type Noted = { ended_jobs?: string | null }

const nameOf: Statement = { name: 'topic_name', text: 'select name from pullgate.read_topics($1)' }
// Ids are digests of names: what was looked up once stays true.
const namesMax = 10_000

/** The database, of which each job that a statement made by `ending` has ended is told of: by topic and state. */
export function tellEnds(database: Database, emit: Emit): Database {
  // Look-ups under way included, so that ends of one topic that come together share a look-up.
  const names = new Map<TopicId, Promise<string>>()

  async function lookUp(id: TopicId): Promise<string> {
    const [row] = await database.query<{ name: string }>(nameOf, [id]).catch(() => [])
    if (row === undefined) names.delete(id)
    return row?.name ?? '_other'
  }

  function topicName(id: TopicId): Promise<string> {
    const known = names.get(id)
    if (known !== undefined) return known
    const [oldest] = names.keys()
    if (names.size >= namesMax && oldest !== undefined) names.delete(oldest)
    const name = lookUp(id)
    names.set(id, name)
    return name
  }

  async function tell(note: string): Promise<void> {
    for (const [key, jobs] of countEnds(note)) {
      const [state = '', topic = ''] = key.split(' ')
      emit({ type: 'jobs ended', topic: await topicName(topic), state: state as JobState, jobs })
    }
  }

  return {
    ...database,
    async query<Row extends Record<string, unknown>>(statement: Statement, values: readonly unknown[]) {
      const rows = await database.query<Row>(statement, values)
      const first: (Row & Noted) | undefined = rows[0]
      if (first === undefined || !('ended_jobs' in first)) return rows
      if (first.ended_jobs) void tell(first.ended_jobs)
      delete first.ended_jobs
      return rows
    },
  }
}

/** By state and topic id, of a note like `succeeded 7 7 -9;failed 7;`. */
function countEnds(note: string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const entry of note.split(';')) {
    const [state = '', ...topics] = entry.split(' ')
    for (const topic of topics) counts.set(`${state} ${topic}`, (counts.get(`${state} ${topic}`) ?? 0) + 1)
  }
  return counts
}
