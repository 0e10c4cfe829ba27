import pg from 'pg'
import { afterEach, expect, test, vi } from 'vitest'
import { withTlsOfLibpq } from '../../src/db/tls-mode.ts'

afterEach(() => {
  vi.unstubAllEnvs()
})

const socket = 'postgres://u@/d?host=/dir'

test.each([
  [socket, 'require'],
  [socket, 'verify-full'],
  [socket, 'no-verify'],
  [`${socket}&sslmode=require`, ''],
  [`${socket}&sslmode=verify-full&sslrootcert=/nowhere.pem`, ''],
  ['postgres://u@%2Fdir/d', 'require'],
])('pg asks a Unix socket for no TLS: %s under PGSSLMODE=%s', (url, PGSSLMODE) => {
  vi.stubEnv('PGSSLMODE', PGSSLMODE)
  const client = new pg.Client(withTlsOfLibpq(url)) as pg.Client & { ssl: unknown }
  expect([client.ssl, client.host, client.database]).toEqual([false, '/dir', 'd'])
})

test('the URL of a Unix socket stays as it is where nothing asks for TLS', () => {
  expect(withTlsOfLibpq(socket, {})).toBe(socket)
})
