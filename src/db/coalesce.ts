/** Ceiling of one batch; what is more waits for the next. */
const batchMax = 500

/**
 * Turns concurrent calls into one statement without delaying a lone one: the first call runs at once, and those that
 * come while it is under way make up the next batch. `run` returns one result per item, in their order; if it rejects,
 * every call of the batch does.
 */
export function coalesce<Item, Result>(
  run: (items: readonly Item[]) => Promise<readonly Result[]>,
): (item: Item) => Promise<Result> {
  type Call = {
    readonly item: Item
    readonly resolve: (result: Result) => void
    readonly reject: (error: unknown) => void
  }
  const waiting: Call[] = []
  let running = false

  async function drain(): Promise<void> {
    running = true
    while (waiting.length > 0) {
      const batch = waiting.splice(0, batchMax)
      try {
        const results = await run(batch.map(({ item }) => item))
        if (results.length !== batch.length)
          throw new Error(`${results.length} results for ${batch.length} items`)
        batch.forEach(({ resolve }, index) => resolve(results[index] as Result))
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    running = false
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject })
      if (!running) void drain()
    })
}
