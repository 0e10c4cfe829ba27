/** Ceiling of one batch; what is more waits for the next. */
const batchMax = 500

/**
 * Turns concurrent calls into one statement without delaying a lone one: the first call runs at once, and those that
 * come while it is under way make up the next batch. `run` returns one result per item, in their order; if it rejects,
 * every call of the batch does, unless `isOfOneItem` says that an item brought it about: then each is run on its own,
 * so that a bad item fails nobody else's call.
 */
export function coalesce<Item, Result>(
  run: (items: readonly Item[]) => Promise<readonly Result[]>,
  isOfOneItem: (error: unknown) => boolean = () => false,
): (item: Item) => Promise<Result> {
  type Call = {
    readonly item: Item
    readonly resolve: (result: Result) => void
    readonly reject: (error: unknown) => void
  }
  const waiting: Call[] = []
  let running = false

  async function runBatch(batch: readonly Call[]): Promise<void> {
    try {
      const results = await run(batch.map(({ item }) => item))
      if (results.length !== batch.length)
        throw new Error(`${results.length} results for ${batch.length} items`)
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result))
    } catch (error) {
      if (batch.length > 1 && isOfOneItem(error)) for (const call of batch) await runBatch([call])
      else for (const { reject } of batch) reject(error)
    }
  }

  async function drain(): Promise<void> {
    running = true
    while (waiting.length > 0) await runBatch(waiting.splice(0, batchMax))
    running = false
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject })
      if (!running) void drain()
    })
}
