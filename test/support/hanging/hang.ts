import { renameSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { useDatabase } from '../database.ts'
import { openScratch } from '../postgres.ts'
import { startGatewayProcess } from '../process.ts'

// Run by test/integration/interrupted.test.ts, which ends it.

const database = useDatabase()

test(
  'starts what tests start, says so, and never ends',
  async () => {
    const file = process.env.PULLGATE_TEST_HANGS ?? ''
    expect(file).not.toBe('')
    const { child } = await startGatewayProcess(database)
    const own = await openScratch('hanging').start('data')
    const postmaster = Number(
      String(await database.value(`select pg_read_file('postmaster.pid')`)).split('\n')[0],
    )
    const pids = { vitest: process.ppid, worker: process.pid, gateway: child.pid, own: own.pid, postmaster }
    writeFileSync(`${file}.draft`, JSON.stringify(pids))
    renameSync(`${file}.draft`, file)
    await new Promise(() => undefined)
  },
  2 ** 31 - 1,
)
