import { createDueWork } from '../../src/dispatch/due-work.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { DueResult, LookResult } from '../../src/domain/ports.ts'
import { createFakeClock, idle } from './fake-clock.ts'
import { createFakeWatchStore, noMarks } from './fake-job-store.ts'

export const backstopMs = 1_000

/** The work that time makes, over a fake clock, store and dispatcher. */
export function createDueWorld(options: { random?: number; parked?: number } = {}) {
  const clock = createFakeClock({ random: () => options.random ?? 0 })
  const store = createFakeWatchStore()
  const events: GatewayEvent[] = []
  const kicks: string[] = []
  const ended: string[] = []
  const forgotten: string[] = []
  const dispatcher = {
    parked: options.parked ?? 1,
    topicsWithWaiters: () => ['a', 'b'],
    kick: (topic: string, cause: string) => (kicks.push(`${topic} ${cause}`), 'woke' as const),
    endSubscriptions: (ids: readonly string[]) => (ended.push(...ids), Promise.resolve()),
  }
  const emit = (event: GatewayEvent) => void events.push(event)
  const work = createDueWork({
    store,
    marks: noMarks,
    directory: { forget: (ids) => void forgotten.push(...ids) },
    dispatcher,
    clock,
    emit,
    backstopMs,
  })

  /** Answers the look that is under way. */
  async function see(result: Partial<LookResult> = {}) {
    const seen = { readyTopics: [], ended: [], dueInMs: null, fence: null, horizon: 0n }
    store.look.next().resolve({ ...seen, ...result })
    await idle()
  }
  async function due(result: Partial<DueResult> = {}) {
    store.runDue.next().resolve({ ...nothing, ...result })
    await idle()
  }
  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  return { clock, store, events, kicks, ended, forgotten, work, dispatcher, see, due, advance }
}

export const nothing: DueResult = {
  topics: [],
  promoted: 0,
  expired: 0,
  leasesChecked: 0,
  leasesLost: {},
  offersEnded: {},
  more: false,
}
