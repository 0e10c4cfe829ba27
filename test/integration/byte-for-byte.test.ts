import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { publish } from '../sql/jobs.ts'
import { useDatabase } from '../support/database.ts'
import { useGateway } from '../support/gateway.ts'
import { jobOf } from '../support/http.ts'

const database = useDatabase()
const gateway = useGateway(database)

const directory = new URL('../../examples/specs/', import.meta.url)
const files = readdirSync(directory).filter((name) => name.endsWith('.json'))

const digits = '1234567890'.repeat(4)
const values: readonly (readonly [name: string, text: string])[] = [
  ...files.map((name) => [name, readFileSync(new URL(name, directory), 'utf8')] as const),
  ['an escaped NUL', String.raw`{"a":"\u0000","\u0000":1}`],
  ['lone surrogates', String.raw`["\ud800","\udfff x","\udc00\ud800"]`],
  ['duplicate keys', '{"a":1,"a":2,"jobSpec":3,"jobSpec":{"a":1,"a":1}}'],
  ['numbers that no double holds', `[1e400,-1e400,1E+2,1.50,-0,0.0,${digits},-${digits}.${digits}]`],
  ['whitespace', ' \t\r\n{ "a" :\t[ 1 ,\r\n 2 ] , "b"\n:\n{ } }\n '],
  ['deep nesting', `${'[{"a":'.repeat(250)}null${'}]'.repeat(250)}`],
  ['keys that mean something to JavaScript', '{"__proto__":{"x":1},"constructor":null,"toString":0}'],
  ['text beyond ASCII', '{"ü":"日本語 🚀 \u2028\u2029\u202e\u007f\ufeff e\u0301"}'],
  ['escapes that need not be', String.raw`"\u0041\/\u00e9\ud83d\ude80"`],
  ['what looks like the answer around it', String.raw`{"x":"},\"id\":\"2\"}","id":"1","lease":"x"}`],
  ['an empty string', '""'],
  ['null', 'null'],
  ['a number', '0.10'],
]

/** JSON's own whitespace around a value inside another is that other's, not the value's. */
const inside = (text: string) => text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '')

for (const [index, [name, spec]] of values.entries()) {
  test(`published by SQL, arrives byte for byte: ${name}`, async () => {
    const topic = `sql-${index}`
    const id = await gateway.subscribe(topic)
    const [single, batched] = [
      await publish(database, topic, { spec }),
      await publish(database, topic, { spec }),
    ]
    const one = await gateway.pull(id, { wait: 50 })
    expect(one.status).toBe(200)
    const start = Buffer.from(`{"jobSpec":${spec},"id":"${single}","topic":"${topic}",`)
    expect(one.bytes.subarray(0, start.length)).toEqual(start)
    expect(() => one.body).not.toThrow()
    const batch = await gateway.pull(id, { wait: 50, max: 7 })
    const batchStart = Buffer.from(`{"jobs":[{"jobSpec":${spec},"id":"${batched}","topic":"${topic}",`)
    expect(batch.bytes.subarray(0, batchStart.length)).toEqual(batchStart)
    expect(() => batch.body).not.toThrow()
  })

  test(`published by HTTP, arrives byte for byte: ${name}`, async () => {
    const topic = `http-${index}`
    const id = await gateway.subscribe(topic)
    const job = await gateway.publish(topic, spec, { priority: 1 })
    const one = await gateway.pull(id, { wait: 50 })
    const start = Buffer.from(`{"jobSpec":${inside(spec)},"id":"${job}","topic":"${topic}",`)
    expect(one.bytes.subarray(0, start.length)).toEqual(start)
  })

  test(`progress and result come back byte for byte: ${name}`, async () => {
    const topic = `result-${index}`
    const id = await gateway.subscribe(topic)
    for (const settleInPull of [false, true]) {
      await publish(database, topic)
      const job = jobOf(await gateway.pull(id, { wait: 50 }))
      const head = `"lease":"${job.lease}"`
      const path = settleInPull ? `/subscriptions/${id}?max=1&wait=0` : undefined
      const wrap = (verb: string, text: string) =>
        path === undefined ? `{${text}}` : `{"${verb}":[{"id":"${job.id}",${text}}]}`
      const method = path === undefined ? 'POST' : 'PATCH'
      const progress = wrap('heartbeat', `${head},"progress":${spec}`)
      const beat = await gateway.request(method, path ?? `/jobs/${job.id}/heartbeat`, { text: progress })
      expect(beat.status, beat.text).toBe(200)
      const running = await gateway.request('GET', `/jobs/${job.id}`)
      expect(running.text).toContain(`,"progress":${inside(spec)},"result":null}`)
      const result = wrap('complete', `${head},"result":${spec}`)
      const done = await gateway.request(method, path ?? `/jobs/${job.id}/complete`, { text: result })
      expect(done.status, done.text).toBe(200)
      const finished = await gateway.request('GET', `/jobs/${job.id}`)
      expect(finished.text.endsWith(`,"progress":${inside(spec)},"result":${inside(spec)}}`)).toBe(true)
    }
  })
}

test('a null result is told from none', async () => {
  const id = await gateway.subscribe('null-result')
  await publish(database, 'null-result')
  const job = jobOf(await gateway.pull(id, { wait: 50 }))
  await gateway.settle(job, 'complete', { result: null })
  expect(await database.value('select result from pullgate.history where id = $1', [job.id])).toBe('null')
})
