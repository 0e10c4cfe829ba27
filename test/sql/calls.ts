import type { Call, Entry } from './calls/call.ts'
import { claims } from './calls/handing-out.ts'
import { keeping } from './calls/keeping.ts'
import { publishing, subscriptions } from './calls/publishing.ts'
import { readings } from './calls/reading.ts'
import { outcomes, settles } from './calls/settling.ts'
import { gateways, time } from './calls/watching.ts'

/** Every function and view of the schema: how it is called, who calls it, or why it touches no rows. */

const helperOf = (caller: string, ...names: string[]): Record<string, Entry> =>
  Object.fromEntries(names.map((name) => [name, { helperOf: caller }]))
const noRows = (why: string, ...names: string[]): Record<string, Entry> =>
  Object.fromEntries(names.map((name) => [name, { noRows: why }]))

export const entries: Record<string, Entry> = {
  ...{
    ...publishing,
    ...claims,
    ...settles,
    ...time,
    ...gateways,
    ...outcomes,
    ...subscriptions,
    ...readings,
    ...keeping,
  },
  ...helperOf('publish', 'use_lane', 'announce_topic', 'notify'),
  ...helperOf('inbox', 'inbox_insert'),
  ...helperOf('give_back', 'undo_claim', 'lock_claims', 'job_wakes', 'end_hold', 'end_holds'),
  ...helperOf('confirm', 'change_all'),
  ...helperOf('set_aside_unclaimable', 'set_aside'),
  ...helperOf('mend_sequences', 'sequences_behind'),
  ...helperOf('settle_completes', 'lock_jobs', 'lock_job', 'finish_all', 'settle_complete'),
  ...helperOf('settle_fails', 'settle_fail', 'finish', 'come_back'),
  ...helperOf('settle_releases', 'settle_release'),
  ...helperOf('heartbeats', 'heartbeat'),
  ...helperOf('run_due', 'lose', 'withdraw', 'next_due'),
  ...helperOf('bury', 'lock_unconfirmed', 'forget_gateways'),
  ...helperOf('give_back_unheard', 'first_holds'),
  ...helperOf('look', 'ready_topics'),
  ...helperOf('complete', 'conclude', 'lock_known_job', 'tell', 'notify_heartbeats'),
  ...helperOf('claim', 'lane_twin'),
  ...noRows(
    'a value of its arguments',
    'deliveries_max',
    'one_more',
    'logged',
    'refusal',
    'mark_of',
    'digest',
    'topic_id',
  ),
  ...noRows('a value of its arguments', 'day_slot', 'is_json', 'due_instant', 'is_of_row', 'pending'),
  ...noRows(
    'a check of its arguments',
    'check_options',
    'check_text_options',
    'check_job_spec',
    'check_topic_name',
    'check_instant',
    'check_setting',
  ),
  ...noRows('an error', 'already_ended', 'refuse_retry'),
  ...noRows('a notification', 'wake'),
  ...noRows('a lock', 'is_unlocked'),
  ...noRows('the row that it was called for', 'job_becomes_ready'),
}

export const calls: readonly (Call & { readonly name: string })[] = Object.entries(entries).flatMap(
  ([name, entry]) =>
    'calls' in entry ? entry.calls.map((call) => ({ ...call, name: `${name} ${call.what}`.trim() })) : [],
)
