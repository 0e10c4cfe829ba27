import type pg from 'pg'
import { now, sleep } from './time.ts'

/** Hands out instants of the near future that keep their distance from each other. */
export type Instants = {
  /** At a random moment of the measurement: when a sample begins. */
  begin(): Promise<void>
  /** How long from now, in ms, until an instant of its own between `min` and `max` from now. */
  reserve(min: number, max: number): number
}

const apartMs = 25

export function createInstants(spreadMs: number): Instants {
  const taken: number[] = []
  return {
    begin: () => sleep(Math.random() * spreadMs),
    reserve(min, max) {
      const from = now()
      let at = from + min + Math.random() * (max - min)
      for (let tries = 0; tries < 20 && taken.some((other) => Math.abs(other - at) < apartMs); tries += 1) {
        at = from + min + Math.random() * (max - min)
      }
      taken.push(at)
      return at - from
    },
  }
}

/** What to add to now() to get the database's clock: of several tries the one with the shortest round trip. */
export async function clockOffset(client: pg.Client): Promise<number> {
  let best = { trip: Infinity, offset: 0 }
  for (let n = 0; n < 30; n += 1) {
    const sentAt = now()
    const { rows } = await client.query<{ at: string }>({
      name: 'clock',
      text: 'select extract(epoch from clock_timestamp()) * 1000 as at',
    })
    const trip = now() - sentAt
    if (trip < best.trip) best = { trip, offset: Number(rows[0]?.at) - (sentAt + trip / 2) }
  }
  return best.offset
}
