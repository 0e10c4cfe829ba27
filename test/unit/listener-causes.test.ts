import pg from 'pg'
import { expect, test } from 'vitest'
import { causeOf, NotHeard } from '../../src/db/listener-causes.ts'
import { ReadOnlyServer } from '../../src/db/session.ts'

const fromServer = (code: string) => Object.assign(new pg.DatabaseError('no', 0, 'error'), { code })
const fromSystem = (code: string) => Object.assign(new Error('no'), { code })

test.each([
  ['ECONNREFUSED', fromSystem('ECONNREFUSED'), 'network'],
  ['ENOTFOUND', fromSystem('ENOTFOUND'), 'network'],
  [
    'refused on each of several addresses',
    Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }),
    'network',
  ],
  ['shut down by an administrator', fromServer('57P01'), 'server'],
  ['too many connections', fromServer('53300'), 'server'],
  ['wrong password', fromServer('28P01'), 'server'],
  ['LISTEN during recovery', fromServer('25006'), 'standby'],
  ['no primary', new ReadOnlyServer('no'), 'standby'],
  ['not heard', new NotHeard(), 'pooler'],
  ['closed without a word', new Error('Connection terminated unexpectedly'), 'server'],
  ['a certificate', fromSystem('CERT_HAS_EXPIRED'), 'unknown'],
  ['anything else', 'no', 'unknown'],
])('%s', (_what, error, cause) => {
  expect(causeOf(error)).toBe(cause)
})
