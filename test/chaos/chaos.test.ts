import { expect, test } from 'vitest'
import { runCampaign } from './campaign.ts'
import { planRound } from './plan.ts'

test('no job is lost, stuck or run twice by accident, whatever breaks', async () => {
  const report = await runCampaign({ seed: 363, rounds: 48, epochRounds: 48, atOnce: 16, endLeases: true })
  expect(report.violations, report.ofOneJob.join('\n')).toEqual([])
  expect(report.rounds).toBe(48)
  expect(report.counts['jobs that ran']).toBeGreaterThan(30)
})

test('a round is the same for the same seed, and another for another', () => {
  expect(planRound(1, 5)).toEqual(planRound(1, 5))
  expect(planRound(1, 5)).not.toEqual(planRound(2, 5))
  expect(planRound(1, 5)).not.toEqual(planRound(1, 6))
})
