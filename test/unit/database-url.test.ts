import { describe, expect, test } from 'vitest'
import { databaseUrlMistake, serversOf } from '../../src/domain/database-url.ts'

describe('the servers of a URL', () => {
  test.each([
    ['postgres://u:p@h/db', ['postgres://u:p@h/db']],
    ['postgresql:///db?host=/run', ['postgresql:///db?host=/run']],
    [
      'postgres://u:p@h1,h2:5433/db?sslmode=require',
      ['postgres://u:p@h1/db?sslmode=require', 'postgres://u:p@h2:5433/db?sslmode=require'],
    ],
    ['postgres://[::1]:1,[::2]:2/db', ['postgres://[::1]:1/db', 'postgres://[::2]:2/db']],
    ['postgres://u:a,b@c@h1,h2/db', ['postgres://u:a,b@c@h1/db', 'postgres://u:a,b@c@h2/db']],
    ['postgres://h1,h2', ['postgres://h1', 'postgres://h2']],
  ])('%s', (url, servers) => {
    expect(serversOf(url)).toEqual(servers)
  })
})

describe('a mistake', () => {
  test.each([
    'postgres://h/db',
    'postgresql://u:p@h1:1,h2:2/db',
    'postgres://h/db?target_session_attrs=read-write',
  ])('is none: %s', (url) => {
    expect(databaseUrlMistake(url)).toBeUndefined()
  })

  test.each(['mysql://h/db', 'h/db', 'postgres://h:x/db', 'postgres://h1:1,h2:x/db'])(
    'is no URL: %s',
    (url) => {
      expect(databaseUrlMistake(url)).toMatch(/^must be a URL/)
    },
  )

  test.each(['any', 'standby', 'prefer-standby', 'read-only'])('is to want a server that is %s', (wanted) => {
    expect(databaseUrlMistake(`postgres://h1,h2/db?target_session_attrs=${wanted}`)).toMatch(
      /^target_session_attrs/,
    )
  })
})
