-- Settling by lease: what an executor says of the job it holds.
--
-- A lease counts until its job was claimed again or settled, also after it ended. Repeating a settle with the same
-- lease gives the same answer: complete and fail as long as history is kept, release until the next claim.

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

-- settle_complete for many: jobs that run under the given leases move to history in one statement, the others are
-- looked at one by one. Returns a row per element, in the order given.
-- Locks: the running jobs in the order of their ids, before any other.
create or replace function pullgate.settle_completes(p_ids bigint[], p_leases uuid[], p_results text[])
returns table (status text, state text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_moved bigint[] := '{}';
  v_leases uuid[];
begin
  if cardinality(p_ids) > 1 then
    with locked as materialized (
      select j.id
        from unnest(p_ids, p_leases) as g (id, lease)
        join pullgate.job j on j.id = g.id and j.lease = g.lease
        where j.state = 'running' and j.settled is null
        order by j.id
        for update of j
    ), gone as (
      delete from pullgate.job j where j.id = any (array(select l.id from locked l)) returning j.*
    ), moved as (
      insert into pullgate.history (
          day_slot, id, lane_id, topic_id, due_at, created_at, claimed_at, finished_at, expires_at, lease,
          subscription_id, priority, attempts, max_attempts, deliveries, auto_ack, state, on_lost, settled, dedupe_key,
          cancel_reason, traceparent, progress, result, last_error, log, job_spec)
        select pullgate.day_slot(v_now), j.id, j.lane_id, j.topic_id, j.due_at, j.created_at, j.claimed_at, v_now,
            j.expires_at, j.lease, j.subscription_id, j.priority, j.attempts, j.max_attempts, j.deliveries, j.auto_ack,
            'succeeded', j.on_lost, 'complete', j.dedupe_key, j.cancel_reason, j.traceparent, j.progress,
            g.result, j.last_error, j.log, j.job_spec
          from gone j
          -- A client may name a job twice.
          join (
            select distinct on (g.id, g.lease) g.id, g.lease, g.result
              from unnest(p_ids, p_leases, p_results) as g (id, lease, result)
          ) g on g.id = j.id and g.lease = j.lease
        returning id, lease
    )
    select array_agg(m.id), array_agg(m.lease) into v_moved, v_leases from moved m;
  end if;
  for v_element in 1..cardinality(p_ids) loop
    if v_leases[array_position(v_moved, p_ids[v_element])] = p_leases[v_element] then
      status := 'ok';
      state := 'succeeded';
    else
      select s.status, s.state into status, state
        from pullgate.settle_complete(p_ids[v_element], p_leases[v_element], p_results[v_element]) s;
    end if;
    return next;
  end loop;
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
