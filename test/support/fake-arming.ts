import { createArming } from '../../src/dispatch/arming.ts'
import type { ClaimReport } from '../../src/dispatch/arming.ts'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { LookResult } from '../../src/domain/ports.ts'
import type { TopicId } from '../../src/domain/types.ts'
import { createFakeClock, idle } from './fake-clock.ts'
import { createFakeWatchStore, noMarks } from './fake-job-store.ts'

/** Arming over a fake clock and store: topics are waited for unless a test says otherwise. */
export function createArmingWorld() {
  const clock = createFakeClock()
  const store = createFakeWatchStore()
  const events: GatewayEvent[] = []
  const kicks: string[] = []
  const due: [inMs: number, topic: TopicId | null][] = []
  const lonely = new Set<TopicId>()
  let lookedAhead = 0
  const arming = createArming({
    ...{ store, gateway: 'g', marks: noMarks, clock },
    emit: (event) => void events.push(event),
    kick: (topic, cause) => void kicks.push(`${topic} ${cause}`),
    isWaitedFor: (topic) => !lonely.has(topic),
    dueWork: { lookAhead: () => void (lookedAhead += 1), saw: (...saw) => void due.push(saw) },
  })
  arming.listening()

  async function advance(ms: number) {
    clock.advance(ms)
    await idle()
  }
  /** A claim that comes back a millisecond later; short and empty unless told otherwise. */
  async function claim(topic: TopicId, report: Partial<ClaimReport> = {}) {
    const startedAt = clock.now()
    clock.advance(1)
    arming.claimed(topic, { startedAt, jobs: 0, result: 'short', waiting: true, ...report })
    await idle()
  }
  /** Answers the arm that is under way: all it asks for is fresh unless told otherwise. */
  async function armed(fresh?: readonly TopicId[]) {
    const call = store.arm.next()
    call.resolve(fresh ?? call.args[1])
    await idle()
  }
  async function see(result: Partial<LookResult> = {}) {
    const call = store.look.next()
    const nothing = { readyTopics: [], ended: [], dueInMs: null, dueTopic: null, horizon: 100n, unlocked: [] }
    call.resolve({ ...nothing, fence: call.args[0].fence ? 100n : null, ...result })
    await idle()
  }
  /** Armed, fenced and quiet. */
  async function quiet(topic: TopicId) {
    await claim(topic)
    await armed()
    await advance(0)
    await see()
  }
  /** As many notifications as take the whole budget, of a topic that nobody waits for. */
  function spendAll() {
    for (let n = 0; n < 20; n += 1) arming.notified('elsewhere', 'ready')
  }
  const looked = () => store.look.open.map(({ args: [{ topics }] }) => topics)
  return {
    ...{
      clock,
      store,
      events,
      kicks,
      due,
      lonely,
      arming,
      advance,
      claim,
      armed,
      see,
      quiet,
      spendAll,
      looked,
    },
    lookedAhead: () => lookedAhead,
  }
}
