import { expect, test } from 'vitest'
import { ascending } from '../../src/db/lane-marks.ts'

test('lists marks by lane as a number, each beside its lane', () => {
  const a = { lanes: ['9007199254740993', '-5'], marks: ['1', '2'] }
  const b = { lanes: ['10', '9007199254740992', '9'], marks: ['3', '4', '5'] }
  expect(ascending([a, { lanes: [], marks: [] }, b])).toEqual([
    ['-5', '9', '10', '9007199254740992', '9007199254740993'],
    ['2', '5', '3', '4', '1'],
  ])
})
