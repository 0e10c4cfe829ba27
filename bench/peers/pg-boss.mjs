import { performance } from 'node:perf_hooks'
import PgBoss from 'pg-boss'
import { finish, input } from './harness.mjs'

// pg-boss in one process, no HTTP: `loops` loops that fetch `batch` jobs and complete them, from a full queue.

const queue = 'bench'
const boss = new PgBoss({ connectionString: input.databaseUrl, max: 10, supervise: false, schedule: false })
boss.on('error', (error) => {
  throw error
})
await boss.start()
await boss.createQueue(queue)
const chunk = 1_000
for (let added = 0; added < input.jobs; added += chunk) {
  const length = Math.min(chunk, input.jobs - added)
  await boss.insert(Array.from({ length }, (_, n) => ({ name: queue, data: { n: added + n } })))
}
await boss.getDb().executeSql('vacuum analyze pgboss.job', [])

let completed = 0
const startedAt = performance.now()
async function work() {
  while (completed < input.jobs) {
    const jobs = await boss.fetch(queue, { batchSize: input.batch })
    if (jobs.length === 0) return
    await boss.complete(
      queue,
      jobs.map(({ id }) => id),
    )
    completed += jobs.length
  }
}
await Promise.all(Array.from({ length: input.loops }, work))
finish({ jobs: completed, seconds: (performance.now() - startedAt) / 1000 })
