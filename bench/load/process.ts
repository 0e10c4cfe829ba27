import { createInterface } from 'node:readline'

/** What the bench hands to a load process: JSON as its argument. */
export function readInput(): unknown {
  return JSON.parse(process.argv[2] ?? '')
}

/** Asked once the bench wants the end, or is gone. */
export const stop: { asked: boolean } = { asked: false }
const lines = createInterface({ input: process.stdin }).once('close', () => (stop.asked = true))

/** Does what the bench asks for, line by line, and answers. */
export function onAsked(work: (line: string) => string): void {
  lines.on('line', (line) => process.stdout.write(`${work(line)}\n`))
}

export function sayReady(): void {
  process.stdout.write('"ready"\n')
}

/** Prints the result and ends the process, whatever is still open. */
export function finish(result: object): void {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}
