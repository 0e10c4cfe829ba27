export type Coalescing<Item> = {
  /** Statements under way at once. One more makes concurrent calls wait less, and batches smaller. */
  readonly concurrency?: number
  /** Ceiling of one batch, in what its items weigh: 1 each unless told. What is more waits for the next. */
  readonly batchMax?: number
  readonly weigh?: (item: Item) => number
  /** Whether one item of a batch brought the error about. */
  readonly isOfOneItem?: (error: unknown) => boolean
}

/**
 * Turns concurrent calls into one statement without delaying a lone one: calls of the same turn, and those that come
 * while all statements are under way, make up a batch. `run` returns one result per item, in their order; if it
 * rejects, every call of the batch does, unless `isOfOneItem` says that an item brought it about: then each half is run
 * on its own, down to the bad item alone, so that a bad item fails nobody else's call.
 */
export function coalesce<Item, Result>(
  run: (items: readonly Item[]) => Promise<readonly Result[]>,
  { concurrency = 1, batchMax = 500, weigh = () => 1, isOfOneItem = () => false }: Coalescing<Item> = {},
): (item: Item) => Promise<Result> {
  type Call = {
    readonly item: Item
    readonly resolve: (result: Result) => void
    readonly reject: (error: unknown) => void
  }
  const waiting: Call[] = []
  let running = 0

  function nextBatch(): Call[] {
    let weight = 0
    let size = 0
    for (const { item } of waiting) {
      weight += weigh(item)
      if (size > 0 && weight > batchMax) break
      size += 1
    }
    return waiting.splice(0, size)
  }

  async function runBatch(batch: readonly Call[]): Promise<void> {
    try {
      const results = await run(batch.map(({ item }) => item))
      if (results.length !== batch.length)
        throw new Error(`${results.length} results for ${batch.length} items`)
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result))
    } catch (error) {
      if (batch.length > 1 && isOfOneItem(error)) {
        const middle = Math.ceil(batch.length / 2)
        // Not awaited: the next batch need not wait for the halves.
        void runBatch(batch.slice(0, middle))
        void runBatch(batch.slice(middle))
      } else for (const { reject } of batch) reject(error)
    }
  }

  async function drain(): Promise<void> {
    running += 1
    // The rest of this turn's calls.
    await Promise.resolve()
    while (waiting.length > 0) await runBatch(nextBatch())
    running -= 1
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject })
      if (running < concurrency) void drain()
    })
}
