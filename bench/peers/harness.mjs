import process from 'node:process'
import { createInterface } from 'node:readline'

export const input = JSON.parse(process.argv[2])

export const lines = createInterface({ input: process.stdin })

export const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

export function finish(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}

/** Ends the process when the bench is gone or asks for it. */
export const stopped = new Promise((resolve) => lines.once('close', resolve))
