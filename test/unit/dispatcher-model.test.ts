import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createModel } from './dispatcher-model.ts'
import type { Model, Step } from './dispatcher-model.ts'

// Random pulls, jobs, claims, losses and times against a database of a few lines: see dispatcher-model.ts.

const topic = fc.constantFrom('a', 'b', 'c')
const subscription = fc.constantFrom('only a', 'also a', 'only b', 'both', 'three')

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('park'),
      subscription,
      wait: fc.constantFrom(0, 50, 500),
      max: fc.constantFrom(1, 2, 70, 100),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('publish'), topic, jobs: fc.constantFrom(1, 2, 5, 150) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('due'), topic, jobs: fc.constantFrom(1, 2, 5, 150) }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('execute'), index: fc.nat(3) }) },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('reply'), index: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('notify'), index: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('advance'), ms: fc.constantFrom(1, 49, 50, 500) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('leave'), index: fc.nat(10) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('die'), index: fc.nat(10) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('end'), subscription }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('fail'), index: fc.nat(3), committed: fc.boolean() }),
  },
)

const steps = fc.array(step, { maxLength: 60, size: 'max' })

async function runAll(all: readonly Step[]): Promise<Model> {
  const model = createModel()
  for (const one of all) {
    await model.run(one)
    model.check()
  }
  return model
}

// A minute of computing on a machine that is busy with other things.
const limitMs = 600_000

test(
  'whatever happens, pulls are answered once and in order, jobs are nowhere twice, none is left beside a pull',
  async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        const model = await runAll(all)
        await model.rest()
        model.check()
        model.checkAtRest()
      }),
      { numRuns: 2_000 },
    )
  },
  limitMs,
)

test(
  'whatever happened before, a drain begins no claim, and answers or hands out to everybody',
  async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        const model = await runAll(all)
        await model.drain()
        model.check()
        expect(model.unanswered()).toEqual([])
      }),
      { numRuns: 500 },
    )
  },
  limitMs,
)
