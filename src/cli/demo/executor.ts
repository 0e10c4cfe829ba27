import { asError } from '../../domain/errors.ts'

/** An executor of the demo: one HTTP long poll after the other, outbound only. */

export type Pulled = {
  readonly id: string
  readonly attempt: number
  readonly lease?: string
  readonly text: string
}

type Verb = 'complete' | 'fail' | 'release' | 'heartbeat'

export class Executor {
  readonly #gateway: string
  readonly #subscription: string
  readonly #signal: AbortSignal

  constructor(gateway: string, subscription: string, signal: AbortSignal) {
    this.#gateway = gateway
    this.#subscription = subscription
    this.#signal = signal
  }

  /** Pulls and hands each job to `work` until the signal. An outage is waited for. */
  async run(work: (job: Pulled, executor: Executor) => Promise<void>): Promise<void> {
    while (!this.#signal.aborted) {
      try {
        const job = await this.#pull()
        if (job !== undefined) await work(job, this)
      } catch (error) {
        if (this.#stopped()) return
        console.error(`executor: ${asError(error).message}; trying again`)
        await new Promise((resolve) => setTimeout(resolve, 500 + Math.random() * 500))
      }
    }
  }

  async settle(job: Pulled, verb: Verb, body: Record<string, unknown> = {}): Promise<void> {
    const response = await fetch(`${this.#gateway}/jobs/${job.id}/${verb}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ lease: job.lease, ...body }),
    })
    if (!response.ok) throw new Error(`${verb} of job ${job.id}: HTTP ${response.status}`)
    await response.arrayBuffer()
  }

  async #pull(): Promise<Pulled | undefined> {
    // fetch leaves its listeners on a signal until they are collected. Each pull has one of its own.
    const own = new AbortController()
    const abort = () => own.abort()
    this.#signal.addEventListener('abort', abort)
    try {
      return await this.#pullOnce(own.signal)
    } finally {
      this.#signal.removeEventListener('abort', abort)
    }
  }

  async #pullOnce(signal: AbortSignal): Promise<Pulled | undefined> {
    const response = await fetch(`${this.#gateway}/subscriptions/${this.#subscription}`, {
      method: 'PATCH',
      headers: { Prefer: 'wait=20' },
      signal,
    })
    if (response.status === 204) return undefined
    const text = await response.text()
    if (response.status !== 200) throw new Error(`pull: HTTP ${response.status}`)
    const { id, attempt, lease } = JSON.parse(text) as Pulled
    return { id, attempt, text, ...(lease === undefined ? {} : { lease }) }
  }

  // Read through a function: it changes while a request is awaited.
  #stopped(): boolean {
    return this.#signal.aborted
  }
}

export async function subscribe(
  gateway: string,
  settings: { topic: string; name: string; ack: 'auto' | 'explicit' },
): Promise<string> {
  const response = await fetch(`${gateway}/subscriptions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(settings),
  })
  const answer = (await response.json()) as { id?: string; detail?: string }
  if (answer.id === undefined)
    throw new Error(`POST /subscriptions: HTTP ${response.status} ${answer.detail ?? ''}`)
  return answer.id
}
