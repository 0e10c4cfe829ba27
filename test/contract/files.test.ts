import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = new URL('../../', import.meta.url).pathname
const linesMax = 300

// Written by programs.
const generated = /node_modules\/|package-lock\.json$|^bench\/results\//

const files = ['src', 'test', 'sql', 'bench']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((file) => `${folder}/${file}`),
  )
  .filter((file) => !generated.test(file) && statSync(join(root, file)).isFile())

const linesOf = (file: string) => readFileSync(join(root, file), 'utf8').trimEnd().split('\n').length

test('there is something to count', () => {
  expect(files).toEqual(
    expect.arrayContaining(['src/app.ts', 'sql/roles.sql', 'test/contract/files.test.ts']),
  )
  expect(linesOf('test/contract/files.test.ts')).toBeGreaterThan(20)
})

test(`no file has more than ${linesMax} lines`, () => {
  const long = files.map((file) => ({ file, lines: linesOf(file) })).filter(({ lines }) => lines > linesMax)
  expect(long).toEqual([])
})

test('SQL is ASCII: a session of another encoding could neither read it nor be told its errors', () => {
  const sql = files.filter((file) => file.endsWith('.sql'))
  expect(sql).toContain('sql/roles.sql')
  // eslint-disable-next-line no-control-regex -- control characters are ASCII as well
  expect(sql.filter((file) => !/^[\x00-\x7f]*$/.test(readFileSync(join(root, file), 'utf8')))).toEqual([])
})
