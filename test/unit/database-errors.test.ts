import pg from 'pg'
import { expect, test } from 'vitest'
import { toGatewayError } from '../../src/db/database.ts'
import { GatewayError } from '../../src/domain/errors.ts'

function fromServer(sqlState: string, hint?: string): pg.DatabaseError {
  const error = new pg.DatabaseError('quotes a row', 0, 'error')
  error.code = sqlState
  if (hint !== undefined) error.hint = hint
  return error
}

test.each([
  ['57P01', 'database-unavailable'],
  ['40001', 'database-unavailable'],
  ['53300', 'database-unavailable'],
  ['53100', 'database-unavailable'],
  ['25006', 'database-unavailable'],
  ['PL001', 'invalid-topic'],
  ['PL006', 'job-not-found'],
  ['22021', 'invalid-request'],
  ['54001', 'invalid-job-spec'],
  ['23505', 'internal'],
  ['42P01', 'internal'],
])('SQLSTATE %s of the server is %s', (sqlState, code) => {
  expect(toGatewayError(fromServer(sqlState)).code).toBe(code)
})

test.each(['EPIPE', 'ECONNRESET', 'ECONNREFUSED', undefined])(
  'a broken connection (%s) can be tried again',
  (code) => {
    const error = toGatewayError(Object.assign(new Error('write failed'), { code }))
    expect(error.code).toBe('database-unavailable')
    expect(error.details.retryAfterSeconds).toBeGreaterThan(0)
  },
)

test('only our own errors say more than their title', () => {
  expect(toGatewayError(fromServer('PL005', 'priority is a number.')).details.detail).toContain(
    'priority is a number.',
  )
  expect(toGatewayError(fromServer('23505')).details.detail).toBeUndefined()
})

test('an error that has a place in the table keeps it', () => {
  const error = new GatewayError('lease-lost')
  expect(toGatewayError(error)).toBe(error)
})
