import { expect, test } from 'vitest'
import { runCampaign } from './campaign.ts'
import { planRound } from './plan.ts'
import { isWhole, specOf } from './specs.ts'
import type { Spec } from './specs.ts'
import { planSurroundings } from './surroundings.ts'

test('no job is lost, stuck or run twice by accident, whatever breaks', async () => {
  const report = await runCampaign({
    seed: 1,
    rounds: 48,
    epochRounds: 48,
    atOnce: 16,
    endLeases: true,
    oddSessions: true,
  })
  expect(report.violations, report.ofOneJob.join('\n')).toEqual([])
  expect(report.rounds).toBe(48)
  expect(report.counts['jobs that ran']).toBeGreaterThan(30)
  expect(report.surroundings).toMatchObject({
    'rounds with heavy specs': 1,
    'rounds with statistics: emptied': 1,
    'rounds with statistics: one row': 1,
    'rounds with statistics: huge': 1,
  })
})

test('a round is the same for the same seed, and another for another', () => {
  expect(planRound(1, 5)).toEqual(planRound(1, 5))
  expect(planRound(1, 5)).not.toEqual(planRound(2, 5))
  expect(planRound(1, 5)).not.toEqual(planRound(1, 6))
})

test('surroundings are the same for the same seed, and plain sessions have no settings', () => {
  expect(planSurroundings(1, 0, true)).toEqual(planSurroundings(1, 0, true))
  expect(planSurroundings(1, 0, true)).not.toEqual(planSurroundings(1, 1, true))
  expect(planSurroundings(1, 0, false)).toEqual({ ...planSurroundings(1, 0, true), session: {} })
})

test('heavy specs are below the limit, and are not whole once a character is another', () => {
  const rounds = Array.from({ length: 2_000 }, (_, round) => planRound(1, round)).filter(({ heavy }) => heavy)
  const jobs = rounds.flatMap(({ publishers }) => publishers.flatMap((one) => one.jobs))
  expect(jobs.length).toBeGreaterThan(20)
  for (const job of jobs.slice(0, 20)) {
    const text = specOf(job)
    expect(Buffer.byteLength(text)).toBeGreaterThan(500_000)
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1_048_576)
    const spec = JSON.parse(text) as Spec
    expect(isWhole(spec)).toBe(true)
    expect(isWhole({ ...spec, p: `${spec.p.slice(0, -1)}y` })).toBe(false)
    expect(isWhole({ ...spec, p: spec.p.slice(1) })).toBe(false)
  }
})
