-- What settling, losing and finishing have in common: one locked row of pullgate.job at a time.
--
-- Lock order everywhere: one job row, or several in the order of their ids; a history row only where no job row is
-- held.

-- An entry of a job's log: an attempt that did not succeed. The lease in it answers a repeated `fail` later on and
-- is never shown.
create or replace function pullgate.log_entry(p_job pullgate.job, p_outcome text, p_state text, p_due_at timestamptz)
returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'attempt', p_job.attempts, 'at', clock_timestamp(), 'outcome', p_outcome, 'error', left(p_job.last_error, 1000),
    'lease', p_job.lease, 'state', p_state, 'dueAt', p_due_at))
$$;

-- The log with an entry more: the last 100.
create or replace function pullgate.logged(
  p_job pullgate.job,
  p_outcome text,
  p_state text,
  p_due_at timestamptz default null
)
returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_array_length(p_job.log) >= 100 then p_job.log - 0 else p_job.log end
    || pullgate.log_entry(p_job, p_outcome, p_state, p_due_at)
$$;

-- Moves a locked job to history in its final state. `p_job` carries the final values of the columns that the
-- caller changed.
create or replace function pullgate.finish(p_job pullgate.job, p_state text, p_result text default null)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  delete from pullgate.job j where j.id = p_job.id;
  insert into pullgate.history (
      day_slot, id, lane_id, topic_id, due_at, created_at, claimed_at, finished_at, expires_at, lease,
      subscription_id, priority, attempts, max_attempts, deliveries, auto_ack, state, on_lost, settled, dedupe_key,
      cancel_reason, traceparent, progress, result, last_error, log, job_spec)
    values (
      pullgate.day_slot(v_now), p_job.id, p_job.lane_id, p_job.topic_id, p_job.due_at, p_job.created_at,
      p_job.claimed_at, v_now, p_job.expires_at, p_job.lease, p_job.subscription_id, p_job.priority, p_job.attempts,
      p_job.max_attempts, p_job.deliveries, p_job.auto_ack, p_state, p_job.on_lost, p_job.settled, p_job.dedupe_key,
      p_job.cancel_reason, p_job.traceparent, p_job.progress, p_result, p_job.last_error, p_job.log,
      p_job.job_spec);
end
$$;

-- The hold on a locked, running job ended without a settle; p_in_doubt: its hand-over broke or was never confirmed.
-- Returns its new state.
create or replace function pullgate.lose(p_job pullgate.job, p_in_doubt boolean)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_outcome text := case when p_in_doubt then 'in doubt' else 'lost' end;
  v_state text := case
    when p_job.on_lost = 'orphan' then 'orphaned'
    when p_job.cancel_reason is not null then 'cancelled'
    when p_job.on_lost = 'fail' or p_job.attempts >= p_job.max_attempts then 'failed'
    else 'ready'
  end;
begin
  p_job.last_error := case
    when p_in_doubt then 'delivery in doubt: the connection or gateway broke while the job was handed over'
    else 'lease ended: the executor stopped sending heartbeats'
  end;
  p_job.log := pullgate.logged(p_job, v_outcome, v_state);
  if v_state in ('cancelled', 'failed') then
    perform pullgate.finish(p_job, v_state);
  else
    -- The lease stays: a late settle or heartbeat still counts until the job is claimed again. The deadline is for
    -- the start, which it has met.
    update pullgate.job j set
        state = v_state, lease_check_at = null, last_error = p_job.last_error, log = p_job.log, expires_at = null
      where j.id = p_job.id;
  end if;
  return v_state;
end
$$;

-- Locks the job if it is live, or delivered and in history. `held` says whether the lease still counts; without a
-- lease it does for a job whose acknowledgement was automatic, also before that was confirmed: its executor may be
-- faster. `finished` is the job's history row, if it has one.
create or replace function pullgate.lock_job(
  p_id bigint,
  p_lease uuid,
  out job pullgate.job,
  out finished pullgate.history,
  out held boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  loop
    select j.* into job from pullgate.job j where j.id = p_id for update;
    exit when found;
    select h.* into finished from pullgate.history h where h.id = p_id;
    if finished.state = 'delivered' then
      -- Its outcome can still be told, by several at once.
      select h.* into finished from pullgate.history h where h.id = p_id and h.day_slot = finished.day_slot for update;
    end if;
    exit when found;
    -- retry() may have moved it back between the two looks.
    exit when not exists (select from pullgate.job j where j.id = p_id);
  end loop;
  held := case
    when p_lease is null then job.auto_ack and job.lease is not null and job.settled is null
      and job.state in ('running', 'ready', 'orphaned', 'delivered')
    else job.lease = p_lease and job.settled is null and job.state in ('running', 'ready', 'orphaned')
  end;
  held := coalesce(held, false);
end
$$;

-- Puts a locked job back among the waiting ones; its settled lease stays for repeated answers.
create or replace function pullgate.come_back(p_job pullgate.job, p_state text, p_due_at timestamptz)
returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  update pullgate.job j set
      state = p_state, due_at = coalesce(p_due_at, j.due_at), attempts = p_job.attempts, settled = p_job.settled,
      lease_check_at = null, last_error = p_job.last_error, log = p_job.log,
      -- A failed attempt has started in time; a released one is as if it had not.
      expires_at = case when p_job.settled = 'release' then j.expires_at end
    where j.id = p_job.id
$$;
