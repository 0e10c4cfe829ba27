-- What settling, losing and finishing have in common: one locked row of pullgate.job at a time.
--
-- Lock order everywhere: one job row, or several in the order of their ids; a history row only where no job row is
-- held.

-- The job's log with an entry more, for an attempt that did not succeed: the last 100. The lease in it answers a
-- repeated `fail` later on and is never shown.
create or replace function pullgate.logged(
  p_job pullgate.job,
  p_outcome text,
  p_state text,
  p_due_at timestamptz default null
)
returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Instants in JSON have the session's offset from UTC, and are read by others.
set timezone = 'UTC'
as $$
begin
  return case when jsonb_array_length(p_job.log) >= 100 then p_job.log - 0 else p_job.log end
    || jsonb_strip_nulls(jsonb_build_object(
      'attempt', p_job.attempts, 'at', clock_timestamp(), 'outcome', p_outcome, 'error', left(p_job.last_error, 1000),
      'lease', p_job.lease, 'state', p_state, 'dueAt', p_due_at));
end
$$;

-- Locks the jobs of a call for many, before one of them is looked at. A job that somebody else has locked for long must
-- not hold up the others: then 55P03, and the caller asks for each on its own.
create or replace function pullgate.lock_jobs(p_ids bigint[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('lock_timeout', '200ms', true);
  perform from pullgate.job j where j.id = any (p_ids) order by j.id for update;
end
$$;

-- Moves jobs to history in their final state: the one place that writes a row there. With p_leases only those that
-- run under the lease given at their first place in p_ids; else all, which the caller has locked. p_results are in
-- the order of p_ids; the rest is what a caller with a single job has changed of it. Returns the ids of those moved.
-- The setting pullgate.ended has, until the transaction ends, the state and the topics of those moved, for the gateway's
-- statement to read: `succeeded 7 7 -9;`. A transaction that ends thousands of jobs one by one is not to copy it each time.
-- A spec goes from table to table here, as it is stored; in a variable it would be unpacked.
create or replace function pullgate.finish_all(
  p_ids bigint[],
  p_state text,
  p_leases uuid[] default null,
  p_results text[] default null,
  p_attempts smallint default null,
  p_deliveries smallint default null,
  p_settled text default null,
  p_cancel_reason text default null,
  p_last_error text default null,
  p_log jsonb default null
)
returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_day_slot smallint := pullgate.day_slot(v_now);
  v_moved bigint[];
  v_topics text;
  v_ended text;
begin
  if cardinality(p_ids) = 0 then
    return '{}';
  end if;
  with given as (
    select distinct on (g.id) g.id, g.lease, g.result
      from unnest(p_ids, p_leases, p_results) with ordinality as g (id, lease, result, position)
      where g.id is not null
      order by g.id, g.position
  ), gone as (
    delete from pullgate.job j using given g
      where j.id = any (array[g.id])
        and (p_leases is null or j.lease = g.lease and j.state = 'running' and j.settled is null)
      returning j.*, g.result
  ), moved as (
    insert into pullgate.history (
        day_slot, id, lane_id, topic_id, due_at, created_at, claimed_at, finished_at, expires_at, lease,
        subscription_id, priority, attempts, max_attempts, deliveries, auto_ack, state, on_lost, settled, dedupe_key,
        cancel_reason, traceparent, progress, result, last_error, log, job_spec)
      select v_day_slot, j.id, j.lane_id, j.topic_id, j.due_at, j.created_at, j.claimed_at, v_now,
          j.expires_at, j.lease, j.subscription_id, j.priority, coalesce(p_attempts, j.attempts), j.max_attempts,
          coalesce(p_deliveries, j.deliveries), j.auto_ack, p_state, j.on_lost,
          case p_state when 'succeeded' then 'complete' else coalesce(p_settled, j.settled) end, j.dedupe_key,
          coalesce(p_cancel_reason, j.cancel_reason), j.traceparent, j.progress,
          j.result, coalesce(p_last_error, j.last_error), coalesce(p_log, j.log),
          j.job_spec
        from gone j
      returning id, topic_id
  )
  select array_agg(m.id), string_agg(m.topic_id::text, ' ') into v_moved, v_topics from moved m;
  v_ended := coalesce(current_setting('pullgate.ended', true), '');
  if v_topics is not null and length(v_ended) < 50000 then
    v_ended := set_config('pullgate.ended', v_ended || p_state || ' ' || v_topics || ';', true);
  end if;
  return v_moved;
end
$$;

-- Moves one locked job to history; `p_job` carries what the caller has changed of it.
create or replace function pullgate.finish(p_job pullgate.job, p_state text, p_result text default null)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pullgate.finish_all(
    array[p_job.id], p_state, null, array[p_result],
    p_job.attempts, p_job.deliveries, p_job.settled, p_job.cancel_reason, p_job.last_error, p_job.log);
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
        state = v_state, lease_check_at = null, pull_key = null, last_error = p_job.last_error, log = p_job.log,
        expires_at = null
      where j.id = p_job.id;
  end if;
  return v_state;
end
$$;

-- Locks the job if it is live, or delivered and in history. `held` says whether the lease still counts; without a
-- lease it does for a job whose acknowledgement was automatic, also before that was confirmed: its executor may be
-- faster. An offer is accepted by whatever its lease says: the attempt is counted in `job`, not yet in the table.
-- `finished` is the job's history row, if it has one. Both come without the job's spec: a row that is passed on
-- carries it decompressed.
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
    else job.lease = p_lease and job.settled is null and job.state in ('offered', 'running', 'ready', 'orphaned')
  end;
  held := coalesce(held, false);
  if held and job.unaccepted > 0 then
    job.attempts := job.attempts + 1;
    job.unaccepted := 0;
  end if;
  job.job_spec := null;
  finished.job_spec := null;
end
$$;

-- Puts a locked job back among the waiting ones; its settled lease stays for repeated answers.
create or replace function pullgate.come_back(p_job pullgate.job, p_state text, p_due_at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update pullgate.job j set
      state = p_state, due_at = coalesce(p_due_at, j.due_at), attempts = p_job.attempts, unaccepted = 0,
      settled = p_job.settled, pull_key = null, lease_check_at = null, last_error = p_job.last_error, log = p_job.log,
      -- A failed attempt has started in time; a released one is as if it had not.
      -- One that has passed is set to now: nothing looks for instants further back (advance_marks).
      expires_at = case
        when p_job.settled = 'release' and j.expires_at is not null then greatest(j.expires_at, clock_timestamp())
      end
    where j.id = p_job.id;
end
$$;
