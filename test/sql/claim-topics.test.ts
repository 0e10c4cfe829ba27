import { expect, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { publish, rows, subscribe } from './jobs.ts'

const database = useDatabase()

type Row = { slot: number; id: string | null; note: string | null }

/** One claim for slots of [topic, subscription, count]. */
function claimTopics(slots: [string, string, number][]): Promise<Row[]> {
  return rows<Row>(
    database,
    `select slot, id, note from pullgate.claim(
      array(select pullgate.topic_id(t) from unnest($1::text[]) with ordinality as u (t, n) order by n),
      $2::uuid[], $3::integer[], '{}', '{}')`,
    [slots.map(([topic]) => topic), slots.map(([, id]) => id), slots.map(([, , count]) => count)],
  )
}

test('a claim for several topics fills the slots of each in their order, whatever lies between them', async () => {
  const [a, b] = [await subscribe(database, ['a', 'b']), await subscribe(database, ['a', 'b'])]
  const ids = [await publish(database, 'a'), await publish(database, 'a'), await publish(database, 'b')]
  const first = await publish(database, 'a', { priority: 5 })
  const claimed = await claimTopics([
    ['b', b, 2],
    ['a', a, 1],
    ['b', a, 1],
    ['a', b, 3],
  ])
  expect(claimed.map(({ slot, id }) => [slot, id])).toEqual([
    [1, ids[2]],
    [2, first],
    [4, ids[0]],
    [4, ids[1]],
  ])
})

test('one claim serves 300 topics; ended subscriptions and paused topics get nothing', async () => {
  const names = Array.from({ length: 300 }, (_, n) => `many-${n}`)
  const [live, ended] = [await subscribe(database, 'many'), await subscribe(database, 'many')]
  await rows(database, 'select pullgate.unsubscribe($1, false)', [ended])
  for (const name of names) if (Number(name.slice(5)) % 3 === 0) await publish(database, name)
  await rows(database, `select pullgate.configure_topic('many-3', paused => true)`)
  const slots = names.map((name): [string, string, number] => [name, name === 'many-6' ? ended : live, 2])
  const claimed = await claimTopics(slots)
  const withJobs = claimed.filter(({ id }) => id !== null).map(({ slot }) => slot)
  const wanted = names.map((_, n) => n).filter((n) => n % 3 === 0 && n !== 3 && n !== 6)
  expect(withJobs).toEqual(wanted.map((n) => n + 1))
  expect(claimed.filter(({ id }) => id === null)).toEqual([{ slot: 7, id: null, note: 'ended' }])
})
