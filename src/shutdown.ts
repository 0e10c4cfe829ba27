import { asError } from './domain/errors.ts'
import type { Emit } from './domain/events.ts'

// A step that hung must not take the others' chance.
const stepMsMin = 1_000

/**
 * What has been started and how to stop it: each start pushes its undo, and stop() runs them in reverse order, all of
 * them, whatever fails. One deadline counts for all; a step that is not done by then is named and left.
 */
export class StopSteps {
  readonly #steps: { readonly name: string; readonly stop: () => Promise<void> | void }[] = []
  readonly #emit: Emit
  #stopping: Promise<boolean> | undefined

  constructor(emit: Emit) {
    this.#emit = emit
  }

  push(name: string, stop: () => Promise<void> | void): void {
    this.#steps.push({ name, stop })
  }

  /** Resolves to whether every step was clean. Further calls join the first. */
  stop(timeoutMs: number): Promise<boolean> {
    this.#stopping ??= this.#run(timeoutMs)
    return this.#stopping
  }

  async #run(timeoutMs: number): Promise<boolean> {
    const until = performance.now() + timeoutMs
    let clean = true
    for (const { name, stop } of this.#steps.toReversed()) {
      let timer: NodeJS.Timeout | undefined
      try {
        const late = new Promise<never>((_, reject) => {
          const leftMs = Math.max(stepMsMin, until - performance.now())
          timer = setTimeout(() => reject(new Error('not done within the time to stop')), leftMs)
        })
        await Promise.race([stop(), late])
      } catch (cause) {
        clean = false
        this.#emit({ type: 'stop step failed', step: name, error: asError(cause) })
      } finally {
        clearTimeout(timer)
      }
    }
    return clean
  }
}
