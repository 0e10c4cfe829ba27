import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { useDatabase } from '../support/database.ts'
import { passTo } from '../support/pass.ts'
import { runCli, startCli, started } from '../support/process.ts'

// Before a command is at work. How it says what keeps it from that: start-errors.test.ts.

const database = useDatabase()

test('as processes: an older Node is refused, and the version is told', { timeout: 90_000 }, async () => {
  const as18 = `data:text/javascript,Object.defineProperty(process,'version',{value:'v18.20.8'})`
  const [old, version] = await Promise.all([
    runCli(['help'], { NODE_OPTIONS: `--import="${as18}"` }),
    runCli(['--version']),
  ])
  expect(old).toEqual({
    exit: 1,
    output: 'pullgate: needs Node.js 20.19 or newer, and this is v18.20.8\n',
  })
  expect(version).toEqual({ exit: 0, output: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string })
})

test('npm runs the command from its source: an unbuilt checkout has its help', () => {
  const { scripts } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    scripts: Record<string, string>
  }
  expect(scripts.pullgate).toMatch(/^exec node --import tsx src\//)
  expect(Object.values(scripts).filter((script) => script.includes('node dist'))).toEqual([])
})

/** A port of a server that is away, and what brings it. */
async function awayFor(): Promise<{ port: number; come(): Promise<void> }> {
  const listener = passTo(() => database.url).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  listener.close()
  await once(listener, 'close')
  const come = async () => {
    listener.listen(port, '127.0.0.1')
    await once(listener, 'listening')
    onTestFinished(() => void listener.close())
  }
  return { port, come }
}

test('serve and migrate wait for a server that is away, and say so', { timeout: 90_000 }, async () => {
  const { port, come } = await awayFor()
  const url = new URL(database.url)
  url.port = String(port)
  const settings = { DATABASE_URL: url.href, PULLGATE_PORT: 0 }
  const migrating = startCli(['migrate'], settings)
  await migrating.printed(
    /^pullgate: waits up to 30 s: DATABASE_URL: no Postgres answers there: .*ECONNREFUSED/m,
  )
  const serving = startCli(['serve'], settings)
  await serving.printed(/"event":"database awaited","reason":"DATABASE_URL: no Postgres answers/)
  await come()
  expect(await migrating.exited).toBe(0)
  const gateway = await started(serving)
  gateway.signal('SIGTERM')
  expect(await gateway.exited, gateway.output).toBe(0)
  if (url.password !== '') expect(gateway.output).not.toContain(url.password)
})

test('serve that waits for its server stops at once on SIGTERM', { timeout: 90_000 }, async () => {
  const { port } = await awayFor()
  const serving = startCli(['serve'], {
    ...{ DATABASE_URL: `postgres://u@127.0.0.1:${port}/d`, PULLGATE_CONNECT_WAIT_SECONDS: 3600 },
  })
  await serving.printed(/database awaited/)
  serving.signal('SIGTERM')
  expect(await serving.exited, serving.output).toBe(0)
})
