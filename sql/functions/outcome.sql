-- By job id, for the orchestrator and for people: it learns outcomes on its own channel, it cancels and retries.
-- All raise PL006 for an unknown job. Each locks the one job.

create or replace function pullgate.lock_known_job(p_id bigint, out job pullgate.job, out finished pullgate.history)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  v := pullgate.lock_job(p_id, null);
  job := v.job;
  finished := v.finished;
  if (job).id is null and (finished).id is null then
    raise exception 'job % does not exist', p_id
      using errcode = 'PL006', hint = 'Finished jobs are kept for history_days: pullgate.configure(history_days => ...)';
  end if;
end
$$;

-- Gateways that hold a heartbeat of the running job ask again: it was cancelled, or has ended by id. What ends by lease
-- is not notified of, since a commit with NOTIFY is expensive (wake.sql): its gateway knows, and another one
-- finds it when it has held the heartbeat for its time.
create or replace function pullgate.notify_heartbeats(p_id bigint)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('pullgate.notify', true) is distinct from 'off' then
    perform pg_notify('pullgate_wake', 'cancel:' || p_id);
  end if;
end
$$;

-- The outcome of a job that is in history as delivered.
create or replace function pullgate.tell(p_finished pullgate.history, p_state text, p_result text, p_error text)
returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  update pullgate.history h set
      state = p_state, result = p_result, last_error = coalesce(left(p_error, 10000), h.last_error),
      settled = case p_state when 'succeeded' then 'complete' else 'fail' end, lease = null
    where h.id = p_finished.id and h.day_slot = p_finished.day_slot
$$;

-- Raises PL007: the job has ended otherwise than the caller asks for.
create or replace function pullgate.already_ended(p_id bigint, p_state text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'job % has already ended: %', p_id, p_state
    using errcode = 'PL007', hint = case
      when p_state in ('failed', 'cancelled', 'expired')
        then 'Its outcome stands. To run it again call pullgate.retry(id), in HTTP POST /jobs/{id}/retry.'
      else 'Its outcome stands. To run it again publish a new job.'
    end;
end
$$;

-- Raises PL007: there is nothing to retry in this state.
create or replace function pullgate.refuse_retry(p_id bigint, p_state text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'job % cannot be retried: it is %', p_id, p_state
    using errcode = 'PL007',
      hint = 'Retry is for failed, orphaned, cancelled and expired jobs. To run this one again publish a new job.';
end
$$;

-- What complete and fail share: the outcome of a job in any state that is not final. False if it had this outcome
-- already. Raises PL007 if it ended otherwise.
create or replace function pullgate.conclude(p_id bigint, p_state text, p_result text, p_error text)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  v := pullgate.lock_known_job(p_id);
  if (v.job).id is not null then
    if p_state = 'succeeded' then
      v.job.settled := 'complete';
    else
      v.job.settled := 'fail';
      v.job.last_error := left(p_error, 10000);
      v.job.log := pullgate.logged(v.job, 'failed', 'failed');
    end if;
    -- An executor that never learns its lease sends no heartbeats.
    if (v.job).state = 'running' and not (v.job).auto_ack then
      perform pullgate.notify_heartbeats(p_id);
    end if;
    perform pullgate.finish(v.job, p_state, p_result);
    return true;
  elsif (v.finished).state = 'delivered' then
    perform pullgate.tell(v.finished, p_state, p_result, p_error);
    return true;
  elsif (v.finished).state <> p_state then
    perform pullgate.already_ended(p_id, (v.finished).state);
  end if;
  return false;
end
$$;

-- The job succeeded. `result` is JSON text, or null. Any state that is not final; false if it had succeeded
-- already. Raises PL003 for a result that is not JSON, PL007 if it ended otherwise.
create or replace function pullgate.complete(job_id bigint, result text default null)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pullgate.is_json(result) then
    raise exception 'the result is not JSON'
      using errcode = 'PL003', column = 'result', hint = 'Pass one JSON value as text, json or jsonb.';
  end if;
  return pullgate.conclude(job_id, 'succeeded', result, null);
end
$$;

-- The job failed for good: no further attempt. Any state that is not final; false if it had failed already.
-- Raises PL007 if it ended otherwise.
create or replace function pullgate.fail(job_id bigint, error text)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return pullgate.conclude(job_id, 'failed', null, error);
end
$$;

-- Cancels the job: at once, unless it is running (one that is only offered is not: accepting it is refused); then its executor is told by its next heartbeat, and the job
-- ends as cancelled when the executor fails or releases it. Gateways that hold such a heartbeat are notified. Returns the state after the call: cancelled, or running
-- while the executor has yet to react, or the final state the job had reached before.
create or replace function pullgate.cancel(job_id bigint, reason text default null)
returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  v := pullgate.lock_known_job(job_id);
  if (v.job).id is null then
    return (v.finished).state;
  end if;
  v.job.cancel_reason := left(coalesce(nullif(reason, ''), 'cancelled'), 1000);
  if (v.job).state = 'running' then
    update pullgate.job j set cancel_reason = (v.job).cancel_reason where j.id = job_id;
    perform pullgate.notify_heartbeats(job_id);
    return 'running';
  end if;
  perform pullgate.finish(v.job, 'cancelled');
  return 'cancelled';
end
$$;

-- Re-drives a failed, orphaned, cancelled or expired job: ready at once, with all its attempts again and without
-- its deadline. Returns the state after the call. A live job is left as it is, a delivered or succeeded one raises
-- PL007, one whose dedupe key another job holds PL008.
create or replace function pullgate.retry(job_id bigint)
returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
  v_job_spec text;
  v_holder bigint;
begin
  v := pullgate.lock_known_job(job_id);
  if (v.job).state = 'orphaned' then
    update pullgate.job j set
        state = 'ready', attempts = 0, lease = null, lease_ends_at = null, cancel_reason = null, expires_at = null
      where j.id = job_id;
    return 'ready';
  elsif (v.job).id is not null then
    if (v.job).state = 'delivered' then
      perform pullgate.refuse_retry(job_id, 'delivered');
    end if;
    return (v.job).state;
  elsif (v.finished).state not in ('failed', 'cancelled', 'expired') then
    perform pullgate.refuse_retry(job_id, (v.finished).state);
  end if;
  delete from pullgate.history h where h.id = job_id and h.day_slot = (v.finished).day_slot
    returning h.job_spec into v_job_spec;
  if not found then
    -- Another retry has just moved it.
    return pullgate.retry(job_id);
  end if;
  insert into pullgate.job (
      id, lane_id, topic_id, state, created_at, priority, max_attempts, deliveries, on_lost, dedupe_key,
      traceparent, last_error, log, job_spec)
    overriding system value
    select job_id, (v.finished).lane_id | 1, (v.finished).topic_id, 'ready', (v.finished).created_at,
      (v.finished).priority, (v.finished).max_attempts, (v.finished).deliveries, (v.finished).on_lost,
      (v.finished).dedupe_key, (v.finished).traceparent, (v.finished).last_error, (v.finished).log,
      v_job_spec
    on conflict (topic_id, dedupe_key) where dedupe_key is not null do nothing;
  if not found then
    select j.id into v_holder from pullgate.job j
      where j.topic_id = (v.finished).topic_id and j.dedupe_key = (v.finished).dedupe_key;
    raise exception 'job % cannot be retried: job % holds its dedupe key', job_id, v_holder
      using errcode = 'PL008', hint = 'Wait until that job has ended, or cancel it.';
  end if;
  return 'ready';
end
$$;
