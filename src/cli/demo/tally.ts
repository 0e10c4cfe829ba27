/** What the demo saw: every job published, every hand-over, and the time between. */
export class Tally {
  readonly #published = new Map<string, { readonly spec: string; readonly at: number }>()
  readonly #received = new Map<string, { readonly text: string; readonly at: number }[]>()
  readonly #delaysMs: number[] = []
  #handOvers = 0
  #again = 0

  /** `at`: before the call, on the monotonic clock; the job may be in hand before publish returns. */
  published(id: string, spec: string, at: number): void {
    this.#published.set(id, { spec, at })
    const [first] = this.#received.get(id) ?? []
    if (first !== undefined) this.#delaysMs.push(first.at - at)
  }

  received(id: string, text: string, at: number): void {
    this.#handOvers += 1
    const earlier = this.#received.get(id) ?? []
    if (earlier.length > 0) this.#again += 1
    this.#received.set(id, [...earlier, { text, at }])
    const job = this.#published.get(id)
    if (job !== undefined && earlier.length === 0) this.#delaysMs.push(at - job.at)
  }

  /** A running demo remembers the last jobs only. */
  forgetOld(keep: number): void {
    for (const map of [this.#published, this.#received]) {
      for (const id of map.keys()) {
        if (map.size <= keep) break
        map.delete(id)
      }
    }
    this.#delaysMs.splice(0, Math.max(0, this.#delaysMs.length - keep))
  }

  get handOvers(): number {
    return this.#handOvers
  }

  /** Hand-overs of jobs that had been handed over before: failed or given back. */
  get again(): number {
    return this.#again
  }

  /** Of the jobs published here; a topic may hold others from before. */
  get arrived(): number {
    return [...this.#published.keys()].filter((id) => this.#received.has(id)).length
  }

  percentileMs(part: number): number {
    const sorted = this.#delaysMs.toSorted((a, b) => a - b)
    return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0
  }

  /** What went wrong: jobs that did not arrive, came twice, or changed on the way. */
  faults(): string[] {
    return [...this.#published].flatMap(([id, { spec }]) => {
      const received = this.#received.get(id) ?? []
      if (received.length !== 1) return [`job ${id} arrived ${received.length} times`]
      const start = `{"jobSpec":${spec},"id":"${id}",`
      return received[0]?.text.startsWith(start) === true ? [] : [`job ${id} was changed on the way`]
    })
  }
}
