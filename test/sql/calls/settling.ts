import { byId, byLease, finished, jobs, offered, running, soon, stale, times, unconfirmed } from './call.ts'
import type { Entry } from './call.ts'

/** Settles, heartbeats and reports by lease; outcomes by job id. */

export const settles: Record<string, Entry> = {
  settle_completes: {
    calls: [
      byLease('of running jobs', 'settle_completes', ['text'], running, '1'),
      byLease('of offered jobs', 'settle_completes', ['text'], offered, '1'),
      byLease('with stale leases', 'settle_completes', ['text'], stale(running), '1'),
      byLease('told before', 'settle_completes', ['text'], finished('succeeded'), '1'),
      byLease(
        'of delivered jobs',
        'settle_completes',
        ['text'],
        async (world, count) => ({
          ...(await finished('delivered')(world, count)),
          leases: times(count, null as unknown as string),
        }),
        '1',
      ),
    ],
  },
  settle_fails: {
    calls: [
      byLease('for good', 'settle_fails', ['text', 'boolean', 'float8'], running, 'x', false, null),
      byLease('again at once', 'settle_fails', ['text', 'boolean', 'float8'], running, 'x', true, 0),
      byLease('again later', 'settle_fails', ['text', 'boolean', 'float8'], running, 'x', true, 3600),
    ],
  },
  settle_releases: {
    calls: [
      byLease('at once', 'settle_releases', ['float8'], running, 0),
      byLease('for later', 'settle_releases', ['float8'], running, 3600),
    ],
  },
  read_leases: { calls: [byLease('of running jobs', 'read_leases', [], running)] },
  heartbeats: {
    calls: [
      byLease(
        'of running jobs',
        'heartbeats',
        ['integer', 'text'],
        jobs('running', ({ explicit }) => ({
          ...soon,
          subscription_id: `'${explicit}'`,
          lease_check_at: `clock_timestamp() + interval '1 minute'`,
        })),
        120,
        'half',
      ),
      byLease('that accept offers', 'heartbeats', ['integer', 'text'], offered, 50_000, null),
      byLease('with stale leases', 'heartbeats', ['integer', 'text'], stale(running), null, null),
    ],
  },
  confirm: {
    calls: [
      byLease('without keys', 'confirm', [], unconfirmed),
      byLease(
        'with dedupe keys',
        'confirm',
        [],
        jobs('unconfirmed', { dedupe_key: `gen_random_uuid()::text` }),
      ),
    ],
  },
  give_back: { calls: [byLease('of running jobs', 'give_back', [], running)] },
  doubt: {
    calls: [
      byLease('that go back', 'doubt', [], running),
      byLease('that on_lost decides', 'doubt', [], jobs('unconfirmed', { on_lost: `'fail'` })),
    ],
  },
  refresh_claims: { calls: [byLease('of unconfirmed jobs', 'refresh_claims', [], unconfirmed)] },
}

export const outcomes: Record<string, Entry> = {
  complete: {
    calls: [
      byId('a running job', 'complete', `, '1'`, running),
      byId('a delivered job', 'complete', `, '1'`, finished('delivered')),
      byId('a job that succeeded', 'complete', `, '1'`, finished('succeeded')),
    ],
  },
  fail: { calls: [byId('a ready job', 'fail', `, 'x'`, jobs('ready'))] },
  cancel: {
    calls: [
      byId('a scheduled job', 'cancel', '', jobs('scheduled')),
      byId('a running job', 'cancel', '', running),
    ],
  },
  retry: {
    calls: [
      byId('a failed job', 'retry', '', finished('failed')),
      byId('an orphaned job', 'retry', '', jobs('orphaned')),
    ],
  },
  read_job: {
    calls: [
      byId('a live job', 'read_job', '', running),
      byId('a finished job', 'read_job', '', finished('succeeded')),
    ],
  },
}
