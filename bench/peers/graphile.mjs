import { performance } from 'node:perf_hooks'
import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker'
import { finish, input, lines, say, stopped } from './harness.mjs'

// graphile-worker in one process, no HTTP. `wake`: addJob → task, one at a time, each when the bench asks for it.
// `drain`: a full queue, plain or with localQueue and batched completes.

const logger = new Logger(() => () => undefined)
const connectionString = input.databaseUrl
await runMigrations({ connectionString, logger })
const utils = await makeWorkerUtils({ connectionString, logger })

async function wake() {
  let inHand = () => undefined
  const runner = await run({
    connectionString,
    logger,
    concurrency: 1,
    noHandleSignals: true,
    taskList: { wake: () => inHand() },
  })
  lines.on('line', async () => {
    const received = new Promise((resolve) => (inHand = () => resolve(performance.now())))
    const sentAt = performance.now()
    const added = utils.addJob('wake', {})
    const ms = (await received) - sentAt
    await added
    say(ms)
  })
  say('ready')
  await stopped
  await runner.stop()
  finish({})
}

const batched = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }

async function drain({ jobs, batch }) {
  await utils.withPgClient((client) =>
    client.query(
      `select count(*) from graphile_worker.add_jobs(array(
        select ('noop', json_build_object('n', n), null, null, null, null, null, null)::graphile_worker.job_spec
        from generate_series(1, $1::integer) n))`,
      [jobs],
    ),
  )
  await utils.withPgClient((client) => client.query('vacuum analyze graphile_worker._private_jobs'))
  let left = jobs
  let allDone = () => undefined
  const done = new Promise((resolve) => (allDone = resolve))
  const noop = () => {
    left -= 1
    if (left === 0) allDone()
  }
  const startedAt = performance.now()
  const runner = await run({
    connectionString,
    logger,
    noHandleSignals: true,
    concurrency: 24,
    maxPoolSize: 25,
    taskList: { noop },
    preset: batch ? { worker: batched } : {},
  })
  await done
  // Completed as well: a stop waits for the completes under way.
  await runner.stop()
  finish({ jobs, seconds: (performance.now() - startedAt) / 1000 })
}

await (input.mode === 'wake' ? wake() : drain(input))
