/** Lets one at a time through, in the order they came. */
export type Gate = <T>(work: () => Promise<T>) => Promise<T>

export function createGate(): Gate {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const result = last.then(work)
    last = result.catch(() => undefined)
    return result
  }
}
