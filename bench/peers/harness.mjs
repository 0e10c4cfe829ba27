import process from 'node:process'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers'

export const input = JSON.parse(process.argv[2])

export const lines = createInterface({ input: process.stdin })

export const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

export function finish(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}

const secondsMax = 180
const stopSeconds = 20
const giveUpAfter = (seconds) => setTimeout(() => process.exit(1), seconds * 1000).unref()

/** The bench asks for the end, or is gone. */
export const stopped = new Promise((resolve) => lines.once('close', resolve))

giveUpAfter(secondsMax)
void stopped.then(() => giveUpAfter(stopSeconds))
