import { createInterface } from 'node:readline'

/** What the bench hands to a load process: JSON as its argument. */
export function readInput<T>(): T {
  return JSON.parse(process.argv[2] ?? '') as T
}

const lines = createInterface({ input: process.stdin })

/** The bench asks to end, or is gone. */
export const stopped = new Promise<void>((resolve) => lines.once('close', resolve))

export function sayReady(): void {
  process.stdout.write('"ready"\n')
}

/** Prints the result and ends the process, whatever is still open. */
export function finish(result: object): void {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}
