-- The calls of gateways: settles and heartbeats of many executors in one statement, and so with one commit. Arrays of the
-- same length; a row per element, in the order given. What is named twice is settled once.
--
-- Locks: the jobs in the order of their ids, whatever is then said of each; then history rows in that order.

-- settle_complete for many. Jobs that run under the given leases move to history in one statement; the others
-- are looked at one by one.
create or replace function pullgate.settle_completes(p_ids bigint[], p_leases uuid[], p_results text[])
returns table (status text, state text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved bigint[];
begin
  if cardinality(p_ids) > 1 then
    perform pullgate.lock_jobs(p_ids);
  end if;
  v_moved := pullgate.finish_all(p_ids, 'succeeded', p_leases, p_results);
  if cardinality(v_moved) = cardinality(p_ids) then
    status := 'ok';
    state := 'succeeded';
    for v_element in 1..cardinality(p_ids) loop
      return next;
    end loop;
    return;
  end if;
  return query
    with element as (
      select e.*, e.id = any (v_moved) and e.position = array_position(p_ids, e.id) as moved
        from unnest(p_ids, p_leases, p_results) with ordinality as e (id, lease, result, position)
    ), other as materialized (
      select r.position, s.*
        from (select * from element e where e.moved is not true order by e.id, e.position) r
        cross join lateral pullgate.settle_complete(r.id, r.lease, r.result) s
    )
    select coalesce(o.status, 'ok'), case when o.position is null then 'succeeded' else o.state end
      from element e
      left join other o on o.position = e.position
      order by e.position;
end
$$;

-- settle_fail for many.
create or replace function pullgate.settle_fails(
  p_ids bigint[],
  p_leases uuid[],
  p_errors text[],
  p_retries boolean[],
  p_retry_afters double precision[]
)
returns table (status text, state text, due_at timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_ids) > 1 then
    perform pullgate.lock_jobs(p_ids);
  end if;
  return query
    select s.*
      from (
        select * from unnest(p_ids, p_leases, p_errors, p_retries, p_retry_afters) with ordinality
            as e (id, lease, error, retry, retry_after, position)
          order by e.id, e.position
      ) e
      cross join lateral pullgate.settle_fail(e.id, e.lease, e.error, e.retry, e.retry_after) s
      order by e.position;
end
$$;

-- settle_release for many.
create or replace function pullgate.settle_releases(p_ids bigint[], p_leases uuid[], p_delays double precision[])
returns table (status text, state text, due_at timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_ids) > 1 then
    perform pullgate.lock_jobs(p_ids);
  end if;
  return query
    select s.*
      from (
        select * from unnest(p_ids, p_leases, p_delays) with ordinality as e (id, lease, delay, position)
          order by e.id, e.position
      ) e
      cross join lateral pullgate.settle_release(e.id, e.lease, e.delay) s
      order by e.position;
end
$$;

-- heartbeat for many: offers are accepted and leases that are prolonged are renewed by one statement, the other jobs are looked at one by one.
create or replace function pullgate.heartbeats(
  p_ids bigint[],
  p_leases uuid[],
  p_lease_seconds integer[],
  p_progress text[]
)
returns table (status text, lease_ends_at timestamptz, cancel_reason text, lease_seconds integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
  v_renewed bigint[];
  v_ends timestamptz[];
  v_reasons text[];
  v_seconds integer[];
begin
  if cardinality(p_ids) = 1 then
    select h.* into status, lease_ends_at, cancel_reason, lease_seconds
      from pullgate.heartbeat(p_ids[1], p_leases[1], p_lease_seconds[1], p_progress[1]) h;
    return next;
    return;
  end if;
  perform pullgate.lock_jobs(p_ids);
  v_now := clock_timestamp();
  with asked as materialized (
    select e.*, w.seconds, v_now + make_interval(secs => w.seconds) as ends_at
      from unnest(p_ids, p_leases, p_lease_seconds, p_progress) with ordinality
          as e (id, lease, lease_seconds, progress, position)
      join pullgate.job j on j.id = any (array[e.id])
      left join pullgate.subscription s on s.id = any (array[j.subscription_id])
      cross join lateral (select coalesce(e.lease_seconds, s.lease_seconds, 60) as seconds) w
  ), renewed as (
    -- As in heartbeat.
    update pullgate.job j set
        state = 'running', attempts = j.attempts + (j.unaccepted > 0)::integer, unaccepted = 0,
        lease_ends_at = a.ends_at, lease_check_at = case j.state when 'offered' then a.ends_at else j.lease_check_at end,
        progress = coalesce(a.progress, j.progress)
      from asked a
      where j.id = any (array[a.id]) and j.lease = a.lease and j.settled is null and j.state in ('offered', 'running')
        -- By id, not by the index of all that run.
        and coalesce(j.lease_check_at, 'infinity') <= a.ends_at
      returning a.position, a.seconds, j.lease_ends_at, j.cancel_reason
  )
  select array_agg(r.position), array_agg(r.lease_ends_at), array_agg(r.cancel_reason), array_agg(r.seconds)
    into v_renewed, v_ends, v_reasons, v_seconds
    from renewed r;
  return query
    with element as (
      select e.*, r.ends_at, r.reason, r.seconds
        from unnest(p_ids, p_leases, p_lease_seconds, p_progress) with ordinality
            as e (id, lease, lease_seconds, progress, position)
        left join unnest(v_renewed, v_ends, v_reasons, v_seconds) as r (position, ends_at, reason, seconds)
          on r.position = e.position
    ), other as materialized (
      select r.position, h.*
        from (select * from element e where e.ends_at is null order by e.id, e.position) r
        cross join lateral pullgate.heartbeat(r.id, r.lease, r.lease_seconds, r.progress) h
    )
    select coalesce(o.status, 'ok'), coalesce(e.ends_at, o.lease_ends_at), coalesce(e.reason, o.cancel_reason),
        coalesce(e.seconds, o.lease_seconds)
      from element e
      left join other o on o.position = e.position
      order by e.position;
end
$$;

-- What is left of leases that run, without renewing them: a row per element, `held` false for one that has ended, was
-- settled, or is none. Locks nothing.
create or replace function pullgate.read_leases(p_ids bigint[], p_leases uuid[])
returns table (held boolean, lease_ends_at timestamptz, cancel_reason text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select coalesce(j.lease = e.lease and j.settled is null and j.state = 'running', false), j.lease_ends_at,
        j.cancel_reason
      from unnest(p_ids, p_leases) with ordinality as e (id, lease, position)
      left join pullgate.job j on j.id = any (array[e.id])
      order by e.position;
end
$$;
