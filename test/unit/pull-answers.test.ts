import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { GatewayEvent } from '../../src/domain/events.ts'
import type { ClaimedJob } from '../../src/domain/types.ts'
import type { Answer } from '../../src/dispatch/waiter.ts'
import { Exchange } from '../../src/http/exchange.ts'
import { createPullAnswers, makePayload } from '../../src/http/routes/pull-answers.ts'
import type { Pull } from '../../src/http/routes/pull-answers.ts'
import { createFakeClock } from '../support/fake-clock.ts'
import { job, subscription } from '../support/fake-job-store.ts'
import { expectProblem, apiOf } from '../support/http.ts'

// Real sockets on the loopback interface; what becomes of the jobs is only noted.

let events: GatewayEvent[]
let givenBack: string[]
let written: string[]
let answer: (exchange: Exchange) => void
const server = createServer({ ServerResponse: Exchange }, (_req, exchange) => answer(exchange))

beforeEach(async () => {
  events = []
  givenBack = []
  written = []
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterEach(() => new Promise((resolve) => server.close(resolve)))

const explicit = subscription('s', ['a'], { ack: 'explicit' })
const ids = (jobs: readonly ClaimedJob[]) => jobs.map(({ id }) => id)

/** What a client is answered whose pull comes to this. */
function pull(outcome: Answer, more: Partial<Pull> = {}, headers: Readonly<Record<string, string>> = {}) {
  const answers = createPullAnswers({
    clock: createFakeClock({ random: () => 0 }),
    emit: (event) => void events.push(event),
    directory: { forget: () => undefined } as never,
    handOver: {
      giveBack: (jobs: readonly ClaimedJob[]) => void givenBack.push(...ids(jobs)),
      write(exchange: Exchange, payload: string, { jobs }: { jobs: readonly ClaimedJob[] }) {
        written.push(...ids(jobs))
        exchange.end(payload)
      },
    } as never,
  })
  answer = (exchange) => {
    const asked = { exchange, subscription: 's', batch: true, max: 10, key: undefined, settled: undefined }
    answers.respond({ ...asked, headers: undefined, ...more }, explicit, outcome)
  }
  return apiOf(`http://127.0.0.1:${(server.address() as AddressInfo).port}`).request('PATCH', '/', {
    headers,
  })
}

/** A job of which no text can be made. */
function unsayable(id: string): ClaimedJob {
  const broken = job(id)
  Object.defineProperty(broken, 'jobSpec', {
    get() {
      throw new RangeError('Invalid string length')
    },
  })
  return broken
}
const outcomes = () => events.flatMap((event) => (event.type === 'pull ended' ? [event.outcome] : []))
const logged = () => events.flatMap((event) => (event.type === 'request failed' ? [event.error.message] : []))

describe('whatever is thrown before the first byte', () => {
  test.each([
    ['the text', { kind: 'jobs', jobs: [unsayable('1')], wokenAt: 0 }, {}, 'Invalid string length'],
    [
      'the head',
      { kind: 'jobs', jobs: [job('1')], wokenAt: 0 },
      { headers: { 'Preference-Applied': 'a\nb' } },
      'Invalid character in header content ["Preference-Applied"]',
    ],
  ] as const)('by %s: the jobs go back, and the client is told', async (_what, outcome, more, message) => {
    const told = await pull(outcome, more)
    expectProblem(told, 500, 'internal')
    expect(told.headers.get('retry-after')).toBe('1')
    expect([givenBack, written, outcomes(), logged()]).toEqual([['1'], [], ['error'], [message]])
  })

  test('without jobs: the client is told', async () => {
    const more = { settled: [], headers: { 'x y': '1' } }
    expectProblem(await pull({ kind: 'empty' }, more), 500, 'internal')
    expect([givenBack, outcomes()]).toEqual([[], ['error']])
  })
})

test('of jobs that one answer cannot carry the first are handed out, the others go back, and more are to be had', async () => {
  const jobs = [job('1'), job('2'), unsayable('3'), job('4')]
  const { status, body } = await pull({ kind: 'jobs', jobs, wokenAt: 0 })
  expect([status, (body.jobs as unknown[]).length, body.more]).toEqual([200, 2, true])
  expect([written, givenBack, outcomes()]).toEqual([['1', '2'], ['3', '4'], ['jobs']])
})

test('a long text becomes bytes, so that the head before it cannot make it too long', () => {
  const made = (length: number) => makePayload([job('1')], () => 'x'.repeat(length)).payload
  expect(typeof made(65_536)).toBe('string')
  expect(made(65_537)).toEqual(Buffer.alloc(65_537, 'x'))
})

test('an answer is made of half the jobs, and so on, down to one', () => {
  const jobs = ['1', '2', '3', '4', '5'].map((id) => job(id))
  const tried: number[] = []
  const made = makePayload(jobs, (some) => {
    tried.push(some.length)
    if (some.length > 1) throw new RangeError('Invalid string length')
    return ids(some).join()
  })
  expect([tried, ids(made.jobs), made.payload]).toEqual([[5, 3, 2, 1], ['1'], '1'])
  expect(() => makePayload(jobs, () => ''.padEnd(2 ** 30))).toThrow(RangeError)
})

test.each(['Via', 'X-Forwarded-For', 'Forwarded'])(
  'jobs given through a proxy are told of: %s',
  async (header) => {
    const proxied = () => events.filter(({ type }) => type === 'proxied pull')
    const outcome = { kind: 'jobs', jobs: [job('1')], wokenAt: 0 } as const
    await pull(outcome)
    expect(proxied()).toEqual([])
    await pull(outcome, {}, { [header]: 'x' })
    expect(proxied()).toEqual([{ type: 'proxied pull', ack: 'explicit', first: true }])
  },
)
