-- Settling by lease: what an executor says of the job it holds.
--
-- A lease counts until its job was claimed again or settled, also after it ended. Repeating a settle with the same
-- lease gives the same answer: complete and fail as long as history is kept, release until the next claim.
--
-- Each function here is for one job, and its `status` is ok, lost (stale lease) or unknown (job); settle-many.sql has
-- what gateways call.

-- Why a settle did not apply: `unknown` job or `lost` lease.
create or replace function pullgate.refusal(p_job pullgate.job, p_finished pullgate.history)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_job.id is null and p_finished.id is null then 'unknown' else 'lost' end
$$;

-- The job's outcome is success.
create or replace function pullgate.settle_complete(p_id bigint, p_lease uuid, p_result text, out status text, out state text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  v := pullgate.lock_job(p_id, p_lease);
  if v.held then
    perform pullgate.finish_all(
      array[p_id], 'succeeded', null, array[p_result], p_attempts => (v.job).attempts);
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
language plpgsql volatile
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
language plpgsql volatile
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

-- Renews the lease, p_lease_seconds (default: the subscription's) from now, and tells of a cancel. Accepts an offer, also
-- one that has ended; revives a job that had gone back to ready or orphaned when its lease ended.
create or replace function pullgate.heartbeat(
  p_id bigint,
  p_lease uuid,
  p_lease_seconds integer,
  p_progress text,
  out status text,
  out lease_ends_at timestamptz,
  out cancel_reason text,
  out lease_seconds integer
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
  v_seconds integer := coalesce(
    p_lease_seconds,
    (select s.lease_seconds from pullgate.job j join pullgate.subscription s on s.id = any (array[j.subscription_id])
      where j.id = p_id),
    60);
  v_ends_at timestamptz := clock_timestamp() + make_interval(secs => v_seconds);
begin
  status := 'ok';
  heartbeat.lease_ends_at := v_ends_at;
  heartbeat.lease_seconds := v_seconds;
  -- Of a running job it changes no indexed column, so the update stays heap-only; and it reads no job spec.
  update pullgate.job j set
      state = 'running', attempts = j.attempts + (j.unaccepted > 0)::integer, unaccepted = 0,
      lease_ends_at = v_ends_at, lease_check_at = case j.state when 'offered' then v_ends_at else j.lease_check_at end,
      progress = coalesce(p_progress, j.progress)
    where j.id = p_id and j.lease = p_lease and j.settled is null and j.state in ('offered', 'running')
      -- By id, not by the index of all that run.
      and coalesce(j.lease_check_at, 'infinity') <= v_ends_at
    returning j.cancel_reason into heartbeat.cancel_reason;
  if found then
    return;
  end if;
  v := pullgate.lock_job(p_id, p_lease);
  if not v.held or p_lease is null then
    status := pullgate.refusal(v.job, v.finished);
    heartbeat.lease_ends_at := null;
    heartbeat.lease_seconds := null;
    return;
  end if;
  heartbeat.cancel_reason := (v.job).cancel_reason;
  update pullgate.job j set
      state = 'running', attempts = (v.job).attempts, unaccepted = 0,
      lease_ends_at = v_ends_at, lease_check_at = v_ends_at,
      progress = coalesce(p_progress, j.progress)
    where j.id = p_id;
end
$$;
