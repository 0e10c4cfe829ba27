import { asError } from '../domain/errors.ts'
import type { Emit, GatewayEvent } from '../domain/events.ts'

/**
 * Tells every observer, also those that are added to the list later. One that throws must not break what it observes: jobs are on their way there, and of a job whose
 * answer was written the exception would say that it was not. The process warns on stderr, once for each kind of event.
 */
export function emitTo(observers: readonly ((event: GatewayEvent) => void)[]): Emit {
  const warned = new Set<string>()
  return (event) => {
    for (const observe of observers) {
      try {
        observe(event)
      } catch (thrown) {
        if (warned.has(event.type)) continue
        warned.add(event.type)
        process.emitWarning(`the event '${event.type}' could not be reported: ${asError(thrown).message}`)
      }
    }
  }
}
