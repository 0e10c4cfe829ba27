import { setMaxListeners } from 'node:events'
import { expect, vi } from 'vitest'

/** A client of a gateway, as a script would write one: what it sends and gets are texts, parsed only where asked. */

export type Answer = {
  readonly status: number
  readonly headers: Headers
  readonly bytes: Buffer
  readonly text: string
  /** The text parsed; an empty object without one. */
  readonly body: Readonly<Record<string, unknown>>
}

export type Job = {
  readonly id: string
  readonly lease: string
  readonly attempt: number
  readonly jobSpec: unknown
  readonly topic: string
  readonly leaseSeconds: number
  readonly redelivered?: true
}

export type RequestOptions = {
  readonly json?: unknown
  /** Sent as it is, as application/json unless `headers` say otherwise. */
  readonly text?: string | Uint8Array<ArrayBuffer>
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export type PullOptions = RequestOptions & { readonly wait?: number; readonly max?: number }

export type Api = ReturnType<typeof apiOf>

export function apiOf(url: string, adminUrl = url) {
  async function request(method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
    const { json, text = json === undefined ? undefined : JSON.stringify(json), headers, signal } = options
    const { response, bytes } = await abortable(signal, async (own) => {
      const answered = await fetch(`${url}${path}`, {
        method,
        headers: { ...(text === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
        ...(text === undefined ? {} : { body: text }),
        signal: own,
      })
      return { response: answered, bytes: Buffer.from(await answered.arrayBuffer()) }
    })
    return {
      status: response.status,
      headers: response.headers,
      bytes,
      text: bytes.toString(),
      get body() {
        return (bytes.length === 0 ? {} : JSON.parse(bytes.toString())) as Record<string, unknown>
      },
    }
  }

  function pull(subscription: string, options: PullOptions = {}): Promise<Answer> {
    const { wait, max, ...rest } = options
    const query = Object.entries({ wait, max }).flatMap(([key, value]) =>
      value === undefined ? [] : [`${key}=${value}`],
    )
    const path = `/subscriptions/${subscription}${query.length === 0 ? '' : `?${query.join('&')}`}`
    return request('PATCH', path, rest)
  }

  async function metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const response = await fetch(`${adminUrl}/metrics`)
    return sumOfSeries(await response.text(), name, labels)
  }

  return {
    url,
    adminUrl,
    request,
    pull,
    metric,
    /** Creates a subscription, with explicit acknowledgement unless told otherwise. */
    async subscribe(topic: string, settings: Readonly<Record<string, unknown>> = {}): Promise<string> {
      const answer = await request('POST', '/subscriptions', {
        json: { topic, ack: 'explicit', ...settings },
      })
      expect(answer.status, answer.text).toBe(200)
      return String(answer.body.id)
    },
    /** Publishes over HTTP; `spec` is JSON text. */
    async publish(
      topic: string,
      spec = '{}',
      options: Readonly<Record<string, unknown>> = {},
    ): Promise<string> {
      const rest = JSON.stringify(options).slice(1)
      const text = `{"jobSpec":${spec}${rest === '}' ? '' : ','}${rest}`
      const answer = await request('POST', `/topics/${topic}/jobs`, { text })
      expect(answer.status, answer.text).toBe(201)
      return String(answer.body.id)
    },
    settle(job: Pick<Job, 'id'> & Partial<Job>, verb: string, fields: object = {}): Promise<Answer> {
      return request('POST', `/jobs/${job.id}/${verb}`, { json: { lease: job.lease, ...fields } })
    },
    async job(id: string): Promise<Readonly<Record<string, unknown>>> {
      const answer = await request('GET', `/jobs/${id}`)
      expect(answer.status, answer.text).toBe(200)
      return answer.body
    },
    async state(id: string): Promise<unknown> {
      return (await request('GET', `/jobs/${id}`)).body.state
    },
    /** Resolves once so many pulls are parked and, of the given subscription's topic, no claim is under way. */
    async parked(count: number, subscription?: string): Promise<void> {
      await until(async () => expect(await metric('pullgate_pulls_parked')).toBe(count))
      // One try has to wait for the claims before it.
      if (subscription !== undefined) expect((await pull(subscription, { wait: 0 })).status).toBe(204)
    },
  }
}

/**
 * Work with a signal of its own that follows the given one. fetch leaves its listeners on a signal until they are
 * collected: a thousand requests with one signal would be taken for a leak.
 */
async function abortable<T>(
  signal: AbortSignal | undefined,
  work: (own: AbortSignal) => Promise<T>,
): Promise<T> {
  const own = new AbortController()
  const abort = () => own.abort(signal?.reason)
  if (signal?.aborted === true) abort()
  // As many as requests under way, which may be a thousand.
  if (signal !== undefined) setMaxListeners(0, signal)
  signal?.addEventListener('abort', abort)
  try {
    return await work(own.signal)
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

/** Awaits a condition. The limit is for a machine that is busy with other things; nothing waits for it to pass. */
export async function until(condition: () => unknown): Promise<void> {
  await vi.waitFor(condition, { timeout: 120_000, interval: 10 })
}

/** The job of a single pull. */
export function jobOf(answer: Answer): Job {
  expect(answer.status, answer.text).toBe(200)
  return answer.body as unknown as Job
}

export function jobsOf(answer: Answer): readonly Job[] {
  expect(answer.status, answer.text).toBe(200)
  return answer.body.jobs as readonly Job[]
}

/** A problem of RFC 9457 with this code. */
export function expectProblem(answer: Answer, status: number, code: string): void {
  expect([answer.status, answer.body.code], answer.text).toEqual([status, code])
  expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
  expect(answer.body).toMatchObject({ type: `urn:pullgate:error:${code}`, status })
  expect(answer.body.title).toEqual(expect.any(String))
}

function sumOfSeries(text: string, name: string, labels: Readonly<Record<string, string>>): number {
  let sum = 0
  for (const line of text.split('\n')) {
    const [, series, given = '', value] = /^([\w:]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    if (series !== name) continue
    const matches = Object.entries(labels).every(([key, wanted]) => given.includes(`${key}="${wanted}"`))
    if (matches) sum += Number(value)
  }
  return sum
}
