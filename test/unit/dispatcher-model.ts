import { expect } from 'vitest'
import type { Claiming } from '../../src/dispatch/claiming.ts'
import type { Claim } from '../../src/domain/ports.ts'
import type { Subscription, TopicId } from '../../src/domain/types.ts'
import { createDispatchWorld, probe } from '../support/fake-dispatch.ts'
import type { Probe } from '../support/fake-dispatch.ts'
import { idle } from '../support/fake-clock.ts'
import { fill, nothingDue, subscription } from '../support/fake-job-store.ts'

export type Step =
  | { kind: 'park'; subscription: string; wait: number; max: number }
  | { kind: 'publish'; topic: TopicId; jobs: number }
  /** Jobs fall due, in the statement of a claim if there may be one. */
  | { kind: 'due'; topic: TopicId; jobs: number }
  /** The statement of a claim runs: it takes jobs. Its answer is still on the way. */
  | { kind: 'execute'; index: number }
  /** A claim is answered; one that had not run runs now. */
  | { kind: 'reply'; index: number }
  /** A notification arrives. */
  | { kind: 'notify'; index: number }
  | { kind: 'advance'; ms: number }
  | { kind: 'leave' | 'die'; index: number }
  | { kind: 'end'; subscription: string }
  /** A claim fails; if it was committed, its jobs wait for the ends of their leases. */
  | { kind: 'fail'; index: number; committed: boolean }

export type Model = {
  run(step: Step): Promise<void>
  /** What holds at any time. */
  check(): void
  /** Everything under way comes to its end, with no help from time. */
  rest(): Promise<void>
  checkAtRest(): void
  drain(): Promise<void>
  unanswered(): string[]
}

type Pull = Probe & { name: string; subscription: Subscription; deadline: number; left: boolean }

const subscriptions = new Map(
  [
    subscription('only a', ['a']),
    subscription('also a', ['a']),
    subscription('only b', ['b']),
    subscription('both', ['a', 'b']),
    subscription('three', ['a', 'b', 'c']),
  ].map((one) => [one.id, one]),
)

/** The dispatcher, a database of a few lines, and what must hold between them. */
export function createModel(): Model {
  const { clock, store, dispatcher, givenBack, covered } = createDispatchWorld()
  const ready = new Map<TopicId, string[]>([['a', []], ['b', []], ['c', []]]) // prettier-ignore
  const topicOf = new Map<string, TopicId>()
  const taken = new Set<string>()
  const stranded = new Set<string>()
  const ended = new Set<string>()
  const notifications: (() => void)[] = []
  const executed = new Map<unknown, Claim>()
  /** What falls due in claims that have not run. */
  const fallingDue = new Map<unknown, readonly string[]>()
  const pulls: Pull[] = []
  const handedOut = new Map<string, string>()
  const complaints: string[] = []
  let published = 0
  let failures = 0

  const waiting = () => pulls.filter((pull) => pull.waiter.parked)

  function makeReady(topic: TopicId, ids: readonly string[], first: boolean): void {
    const queue = ready.get(topic) ?? []
    ready.set(topic, first ? [...ids, ...queue] : [...queue, ...ids])
    notifications.push(() => void dispatcher.kick(topic, 'notification'))
  }

  function park(id: string, wait: number, max: number): void {
    const one = subscriptions.get(id)
    if (one === undefined) throw new Error(id)
    const pull: Pull = Object.assign(
      probe(one, max, (answer) => {
        if (answer.kind !== 'jobs') return
        if (answer.jobs.length > max || answer.jobs.length === 0)
          complaints.push(`${pull.name}: a wrong number of jobs`)
        for (const job of answer.jobs) {
          if (handedOut.has(job.id)) complaints.push(`job ${job.id} went to two pulls`)
          handedOut.set(job.id, pull.name)
        }
        const earlier = waiting().find(
          (other) => other.subscription === one && other.live && pulls.indexOf(other) < pulls.indexOf(pull),
        )
        if (earlier !== undefined && one.topics.length === 1)
          complaints.push(`${pull.name} overtook ${earlier.name}`)
      }),
      { name: `pull ${pulls.length} of ${id}`, subscription: one, deadline: clock.now() + wait, left: false },
    )
    pulls.push(pull)
    dispatcher.park(pull.waiter, wait)
  }

  function publish(topic: TopicId, jobs: number): string[] {
    const ids = Array.from({ length: jobs }, () => String(++published))
    for (const id of ids) topicOf.set(id, topic)
    return ids
  }

  /** A claim like others, in which the jobs fall due; without one they do so by themselves. */
  function fallDue(topic: TopicId, ids: readonly string[]): void {
    const claimDue: Claiming['claimDue'] = async (_limit, _after, ...claim) => {
      const claimed = store.claim(...claim)
      fallingDue.set(store.claim.open.at(-1), ids)
      return { ...(await claimed), due: nothingDue }
    }
    Object.assign(store, { claimDue })
    if (ready.get(topic)?.length === 0) covered.add(topic)
    const asked = dispatcher.claimDue(topic, 500, null)
    covered.clear()
    if (asked === undefined) makeReady(topic, ids, false)
    else asked.catch(() => undefined)
  }

  type Call = (typeof store.claim.open)[number]

  function execute(call: Call): Claim {
    const known = executed.get(call)
    if (known !== undefined) return known
    const [topic, slots] = call.args
    makeDue(call)
    const endedSlots = slots.flatMap((slot, index) => (ended.has(slot.subscription.id) ? [index] : []))
    const open = slots.map((slot, index) => (endedSlots.includes(index) ? { ...slot, jobs: 0 } : slot))
    const wanted = open.reduce((sum, { jobs }) => sum + jobs, 0)
    const ids = (ready.get(topic.id) ?? []).splice(0, wanted)
    for (const id of ids) taken.add(id)
    const claim = { jobs: fill(topic.id, open, ids), endedSlots }
    executed.set(call, claim)
    return claim
  }

  function makeDue(call: Call): void {
    const ids = fallingDue.get(call)
    if (ids !== undefined && fallingDue.delete(call)) makeReady(call.args[0].id, ids, false)
  }

  /** The database takes back what was given back, and tells of it. */
  async function settle(): Promise<void> {
    await idle()
    for (const id of givenBack.splice(0)) {
      if (!taken.delete(id) || handedOut.has(id))
        complaints.push(`job ${id} was given back without being held`)
      makeReady(topicOf.get(id) ?? '', [id], true)
    }
    const busy = store.claim.open.map(({ args: [topic] }) => topic.id)
    if (new Set(busy).size < busy.length) complaints.push('two claims of one topic are in flight')
  }

  async function run(step: Step): Promise<void> {
    const call = 'index' in step ? store.claim.open[step.index % store.claim.open.length] : undefined
    const pull = 'index' in step ? waiting()[step.index % waiting().length] : undefined
    switch (step.kind) {
      case 'park':
        park(step.subscription, step.wait, step.max)
        break
      case 'publish':
        makeReady(step.topic, publish(step.topic, step.jobs), false)
        break
      case 'due':
        fallDue(step.topic, publish(step.topic, step.jobs))
        break
      case 'execute':
        if (call !== undefined) execute(call)
        break
      case 'reply':
        if (call !== undefined) call.resolve(execute(call))
        break
      case 'fail':
        if (call === undefined) break
        failures += 1
        // What was rolled back falls due in the next run.
        if (step.committed) execute(call)
        else makeDue(call)
        for (const { job } of executed.get(call)?.jobs ?? []) stranded.add(job.id)
        call.reject(new Error('no answer from the database'))
        break
      case 'notify':
        notifications.splice(step.index % Math.max(1, notifications.length), 1).forEach((tell) => tell())
        break
      case 'advance':
        clock.advance(step.ms)
        break
      case 'leave':
        if (pull !== undefined && dispatcher.leave(pull.waiter)) pull.left = true
        break
      case 'die':
        if (pull !== undefined) pull.live = false
        break
      case 'end':
        ended.add(step.subscription)
        notifications.push(() => void dispatcher.endSubscriptions([step.subscription]))
        break
    }
    await settle()
  }

  function check(): void {
    for (const { name, answers, left, waiter } of pulls) {
      const endings = answers.length + Number(left)
      if (endings !== (waiter.parked ? 0 : 1)) complaints.push(`${name} ended ${endings} times`)
    }
    const held = new Set([...executed].flatMap(([call, { jobs }]) =>
      store.claim.open.includes(call as Call) ? jobs.map(({ job }) => job.id) : [])) // prettier-ignore
    for (const id of taken) {
      if (!held.has(id) && !handedOut.has(id) && !stranded.has(id))
        complaints.push(`job ${id} is held by nobody`)
    }
    if (dispatcher.parked !== waiting().length) complaints.push('the number of parked pulls is wrong')
    expect(complaints).toEqual([])
  }

  async function rest(): Promise<void> {
    // A claim that failed has used up its wakes: then the backstop helps.
    if (failures > 0) notifications.push(() => dispatcher.kickAll('backstop'))
    for (let rounds = 0; notifications.length + store.claim.open.length > 0; rounds += 1) {
      if (rounds > 500) throw new Error('it does not come to rest')
      if (notifications.length > 0) await run({ kind: 'notify', index: 0 })
      else await run({ kind: 'reply', index: rounds })
    }
    // What the backstop says of the last 10 s.
    void dispatcher.endSubscriptions([...ended])
    await settle()
  }

  function checkAtRest(): void {
    for (const pull of waiting()) {
      expect(ended.has(pull.subscription.id), `${pull.name} outlives its subscription`).toBe(false)
      // Waits end together with those of the same 25 ms.
      expect(pull.deadline + 25 > clock.now(), `${pull.name} outlives its wait`).toBe(true)
      if (!pull.live) continue
      for (const { id } of pull.subscription.topics)
        expect(ready.get(id), `ready beside ${pull.name}`).toEqual([])
    }
  }

  return {
    ...{ run, check, rest, checkAtRest },
    async drain() {
      const before = store.claim.total()
      const stopped = dispatcher.stopClaiming()
      for (const tell of notifications.splice(0)) tell()
      while (store.claim.open.length > 0) await run({ kind: 'reply', index: 0 })
      await stopped
      const answered = dispatcher.answerAll(100)
      clock.advance(100)
      await answered
      expect(store.claim.total(), 'claims after the drain began').toBe(before)
    },
    unanswered: () => waiting().map(({ name }) => name),
  }
}
