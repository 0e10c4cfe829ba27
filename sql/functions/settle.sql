-- Settling by lease: what an executor says of the job it holds.
--
-- A lease counts until its job was claimed again or settled, also after it ended. Repeating a settle with the same
-- lease gives the same answer: complete and fail as long as history is kept, release until the next claim.
-- Lock order everywhere: one job row, or several in the order of their ids; history rows only under none.

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

-- The hold on a locked, running job ended without a settle. Returns its new state.
create or replace function pullgate.lose(p_job pullgate.job)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_outcome text := case when p_job.auto_ack then 'in doubt' else 'lost' end;
  v_state text := case
    when p_job.on_lost = 'orphan' then 'orphaned'
    when p_job.cancel_reason is not null then 'cancelled'
    when p_job.on_lost = 'fail' or p_job.attempts >= p_job.max_attempts then 'failed'
    else 'ready'
  end;
begin
  p_job.last_error := case
    when p_job.auto_ack then 'delivery in doubt: the connection or gateway broke while the job was handed over'
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

-- Locks the job if it is live, or delivered and in history. `held` says whether the lease still counts; without a lease it does for a job
-- whose acknowledgement was automatic, also before that was confirmed: its executor may be faster. `finished` is the
-- job's history row, if it has one.
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

-- Why a settle did not apply: `unknown` job or `lost` lease.
create or replace function pullgate.refusal(p_job pullgate.job, p_finished pullgate.history)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_job.id is null and p_finished.id is null then 'unknown' else 'lost' end
$$;

-- The job's outcome is success. `status`: ok, lost, unknown.
create or replace function pullgate.settle_complete(p_id bigint, p_lease uuid, p_result text, out status text, out state text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  v := pullgate.lock_job(p_id, p_lease);
  if v.held then
    v.job.settled := 'complete';
    perform pullgate.finish(v.job, 'succeeded', p_result);
    status := 'ok';
  elsif p_lease is null and (v.finished).state = 'delivered' then
    perform pullgate.tell(v.finished, 'succeeded', p_result, null);
    status := 'ok';
  elsif (v.finished).settled = 'complete'
    and ((v.finished).lease = p_lease or p_lease is null and (v.finished).auto_ack)
  then
    status := 'ok';
  else
    status := pullgate.refusal(v.job, v.finished);
  end if;
  state := case when status = 'ok' then 'succeeded' end;
end
$$;

-- The attempt failed. With attempts left and p_retry it is tried again after p_retry_after seconds, by default
-- after a random part of min(300, 2^attempt) seconds, at least 1 ("full jitter"); else, and without a lease, the job
-- is `failed`.
create or replace function pullgate.settle_fail(
  p_id bigint,
  p_lease uuid,
  p_error text,
  p_retry boolean,
  p_retry_after double precision,
  out status text,
  out state text,
  out due_at timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
  v_told jsonb;
begin
  v := pullgate.lock_job(p_id, p_lease);
  if v.held then
    status := 'ok';
    v.job.settled := 'fail';
    v.job.last_error := left(p_error, 10000);
    state := case
      when (v.job).cancel_reason is not null then 'cancelled'
      when p_lease is null or not p_retry or (v.job).attempts >= (v.job).max_attempts then 'failed'
      when p_retry_after = 0 then 'ready'
      else 'scheduled'
    end;
    if state = 'scheduled' then
      due_at := clock_timestamp() + make_interval(secs => coalesce(
        p_retry_after, 1 + random() * (least(300, 2 ^ (v.job).attempts) - 1)));
    end if;
    v.job.log := pullgate.logged(v.job, 'failed', state, due_at);
    if state in ('cancelled', 'failed') then
      perform pullgate.finish(v.job, state);
    else
      perform pullgate.come_back(v.job, state, due_at);
    end if;
  elsif p_lease is null and (v.finished).state = 'delivered' then
    perform pullgate.tell(v.finished, 'failed', null, p_error);
    status := 'ok';
    state := 'failed';
  elsif p_lease is null and (v.finished).auto_ack and (v.finished).state = 'failed' and (v.finished).settled = 'fail' then
    status := 'ok';
    state := 'failed';
  else
    select e into v_told
      from jsonb_array_elements(coalesce((v.job).log, (v.finished).log)) as e
      where e ->> 'lease' = p_lease::text and e ->> 'outcome' = 'failed';
    status := case when v_told is null then pullgate.refusal(v.job, v.finished) else 'ok' end;
    state := v_told ->> 'state';
    due_at := (v_told ->> 'dueAt')::timestamptz;
  end if;
end
$$;

-- The executor gives the job back without having failed: no attempt spent.
create or replace function pullgate.settle_release(
  p_id bigint,
  p_lease uuid,
  p_delay double precision,
  out status text,
  out state text,
  out due_at timestamptz
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  v := pullgate.lock_job(p_id, p_lease);
  if v.held and p_lease is not null then
    status := 'ok';
    v.job.settled := 'release';
    v.job.attempts := (v.job).attempts - 1;
    state := case
      when (v.job).cancel_reason is not null then 'cancelled'
      when p_delay > 0 then 'scheduled'
      else 'ready'
    end;
    due_at := case when state = 'scheduled' then clock_timestamp() + make_interval(secs => p_delay) end;
    v.job.log := pullgate.logged(v.job, 'released', state, due_at);
    if state = 'cancelled' then
      perform pullgate.finish(v.job, 'cancelled');
    else
      perform pullgate.come_back(v.job, state, due_at);
    end if;
  elsif coalesce((v.job).lease, (v.finished).lease) = p_lease
    and coalesce((v.job).settled, (v.finished).settled) = 'release'
  then
    status := 'ok';
    state := coalesce((v.job).state, (v.finished).state);
    due_at := case when state = 'scheduled' then (v.job).due_at end;
  else
    status := pullgate.refusal(v.job, v.finished);
  end if;
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

-- Renews the lease, p_lease_seconds (default: the subscription's) from now, and tells of a cancel. Revives a job
-- that had gone back to ready or orphaned when its lease ended.
create or replace function pullgate.heartbeat(
  p_id bigint,
  p_lease uuid,
  p_lease_seconds integer,
  p_progress text,
  out status text,
  out lease_ends_at timestamptz,
  out cancel_reason text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
  v_ends_at timestamptz := clock_timestamp() + make_interval(secs => coalesce(
    p_lease_seconds,
    (select s.lease_seconds from pullgate.job j join pullgate.subscription s on s.id = j.subscription_id
      where j.id = p_id),
    60));
begin
  status := 'ok';
  heartbeat.lease_ends_at := v_ends_at;
  -- Touches no indexed column, so the update stays heap-only, and reads no job spec.
  update pullgate.job j set lease_ends_at = v_ends_at, progress = coalesce(p_progress, j.progress)
    where j.id = p_id and j.lease = p_lease and j.settled is null and j.state = 'running'
      and j.lease_check_at <= v_ends_at
    returning j.cancel_reason into heartbeat.cancel_reason;
  if found then
    return;
  end if;
  v := pullgate.lock_job(p_id, p_lease);
  if not v.held or p_lease is null then
    status := pullgate.refusal(v.job, v.finished);
    heartbeat.lease_ends_at := null;
    return;
  end if;
  heartbeat.cancel_reason := (v.job).cancel_reason;
  update pullgate.job j set
      state = 'running', lease_ends_at = v_ends_at, lease_check_at = v_ends_at,
      progress = coalesce(p_progress, j.progress)
    where j.id = p_id;
end
$$;
