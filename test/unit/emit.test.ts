import { expect, onTestFinished, test, vi } from 'vitest'
import type { GatewayEvent } from '../../src/domain/events.ts'
import { emitTo } from '../../src/telemetry/emit.ts'

test('an observer that throws breaks neither the caller nor the next observer, and the process warns once', () => {
  const warning = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
  onTestFinished(() => {
    warning.mockRestore()
  })
  const seen: string[] = []
  const broken = () => {
    throw new Error('no such label')
  }
  const observers: ((event: GatewayEvent) => void)[] = [broken]
  const emit = emitTo(observers)
  observers.push(({ type }) => void seen.push(type))
  emit({ type: 'published', jobs: 1 })
  emit({ type: 'published', jobs: 1 })
  expect(seen).toEqual(['published', 'published'])
  expect(warning.mock.calls).toEqual([["the event 'published' could not be reported: no such label"]])
})
