import pg from 'pg'
import { expect, test } from 'vitest'
import { isUndone, toGatewayError } from '../../src/db/database.ts'
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

test('an error of ours that names an argument names the field', () => {
  const error = fromServer('PL005', 'Stay before the year 10000.')
  error.column = 'run_at'
  const fields = [{ field: 'runAt', message: 'Stay before the year 10000.' }]
  expect(toGatewayError(error).details.fields).toEqual(fields)
  error.column = 'Idempotency-Key'
  expect(toGatewayError(error).details.fields).toMatchObject([{ field: 'Idempotency-Key' }])
  expect(toGatewayError(fromServer('PL006')).details.fields).toBeUndefined()
})

test('an error that has a place in the table keeps it', () => {
  const error = new GatewayError('lease-lost')
  expect(toGatewayError(error)).toBe(error)
})

test.each(['57014', '55P03', '40P01', '23505', '53100'])(
  'SQLSTATE %s says that the statement was undone',
  (sqlState) => {
    expect(isUndone(fromServer(sqlState))).toBe(true)
    expect(isUndone(toGatewayError(fromServer(sqlState)))).toBe(true)
  },
)

test('the end of a session, a time-out and a broken connection do not', () => {
  for (const sqlState of ['57P01', '57P02', '08006', '58030', '25P03', 'XX000']) {
    expect(isUndone(toGatewayError(fromServer(sqlState))), sqlState).toBe(false)
  }
  expect(isUndone(toGatewayError(new Error('Query read timeout')))).toBe(false)
  expect(isUndone(toGatewayError(Object.assign(new Error('reset'), { code: 'ECONNRESET' })))).toBe(false)
})
