-- Claiming: the one way a job is handed out, and the ways a claim is taken back or confirmed.

-- Claims jobs of one topic for parked pulls.
--   p_subscriptions, p_counts   slots, run-length, in the order of the waiters: so many jobs for this subscription
-- Returns a row per job, in hand-out order: `slot` is the index into the arrays (from 1). A row without a job says
-- that the slot's subscription has ended; it gets none.
-- Locks: SKIP LOCKED on the jobs it takes, nothing else. It never waits.
-- The settings keep a plan that was made while the table was empty from walking millions of rows later.
create or replace function pullgate.claim(
  p_topic bigint,
  p_subscriptions uuid[],
  p_counts integer[]
)
returns table (
  slot integer,
  id bigint,
  lease uuid,
  lease_seconds integer,
  lease_ends_at timestamptz,
  attempt integer,
  redelivered boolean,
  published_at timestamptz,
  ready_seconds double precision,
  traceparent text,
  job_spec text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_wanted integer;
  v_lane bigint;
  v_ids bigint[] := '{}';
begin
  return query
    select w.slot::integer, null::bigint, null::uuid, null::integer, null::timestamptz, null::integer,
        null::boolean, null::timestamptz, null::double precision, null::text, null::text
      from unnest(p_subscriptions) with ordinality as w (subscription_id, slot)
      where not exists (
        select from pullgate.subscription s where s.id = w.subscription_id and s.ended_at is null);
  select sum(w.wanted) into v_wanted
    from unnest(p_subscriptions, p_counts) as w (subscription_id, wanted)
    join pullgate.subscription s on s.id = w.subscription_id and s.ended_at is null;
  if v_wanted is null or exists (select from pullgate.topic t where t.id = p_topic and t.paused) then
    return;
  end if;

  for v_lane in
    select twin.id
      from (select distinct l.id, l.priority from pullgate.lane l where l.topic_id = p_topic) l
      cross join lateral (values (l.id | 1, 0), (l.id, 1)) as twin (id, turn)
      order by l.priority desc, twin.turn
  loop
    v_ids := v_ids || array(
      select j.id from pullgate.job j
        where j.lane_id = v_lane and j.state = 'ready' and (j.expires_at is null or j.expires_at > v_now)
        order by j.seq
        limit v_wanted - cardinality(v_ids)
        for update skip locked);
    exit when cardinality(v_ids) >= v_wanted;
  end loop;
  if cardinality(v_ids) = 0 then
    return;
  end if;

  return query
    with slots as (
      select w.slot, w.subscription_id, s.ack, s.lease_seconds, w.wanted,
          -- Until an automatic acknowledgement is confirmed the job runs under a short lease of its own.
          v_now + make_interval(secs => case s.ack when 'auto' then 15 else s.lease_seconds end) as held_until,
          sum(w.wanted) over (order by w.slot) as upto
        from unnest(p_subscriptions, p_counts) with ordinality as w (subscription_id, wanted, slot)
        join pullgate.subscription s on s.id = w.subscription_id and s.ended_at is null
    ), taken as (
      update pullgate.job j set
          state = 'running',
          attempts = j.attempts + 1,
          -- Releases have no ceiling; a claim that failed on one job would fail for its whole topic.
          deliveries = least(j.deliveries::integer + 1, 32767),
          claimed_at = v_now,
          lease = gen_random_uuid(),
          settled = null,
          lease_ends_at = p.held_until,
          lease_check_at = p.held_until,
          subscription_id = p.subscription_id,
          auto_ack = p.ack = 'auto'
        from (
          select i.id, i.position, s.*
            from unnest(v_ids) with ordinality as i (id, position)
            join slots s on i.position > s.upto - s.wanted and i.position <= s.upto
        ) p
        where j.id = p.id
        returning p.position, p.slot, j.id, j.lease, p.lease_seconds, j.lease_ends_at, j.attempts, j.deliveries,
          j.created_at, j.due_at, j.traceparent, j.job_spec
    )
    select t.slot::integer, t.id, t.lease, t.lease_seconds, t.lease_ends_at, t.attempts::integer, t.deliveries > 1,
        t.created_at, extract(epoch from v_now - t.due_at)::double precision, t.traceparent, t.job_spec
      from taken t
      order by t.position;
end
$$;

-- A locked job as it was before its last claim, but for its place: it comes back to the returned twin.
create or replace function pullgate.undo_claim(p_job pullgate.job)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  p_job.attempts := p_job.attempts - 1;
  p_job.deliveries := p_job.deliveries - 1;
  if p_job.cancel_reason is not null then
    perform pullgate.finish(p_job, 'cancelled');
  else
    update pullgate.job j set
        state = 'ready', attempts = p_job.attempts, deliveries = p_job.deliveries,
        lease = null, lease_ends_at = null, lease_check_at = null
      where j.id = p_job.id;
  end if;
end
$$;

-- The jobs of these claims, locked in the order of their ids, as by every function that locks several: those whose
-- lease still counts, also after it ended.
create or replace function pullgate.lock_claims(p_ids bigint[], p_leases uuid[])
returns setof pullgate.job
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return query
    select j.* from pullgate.job j
      join unnest(p_ids, p_leases) as p (id, lease) on p.id = j.id and p.lease = j.lease
      where j.settled is null and j.state in ('running', 'ready', 'orphaned')
      order by j.id
      for update of j;
end
$$;

-- Takes claims back that reached nobody: ready again at once, no attempt spent, the lease dead. Counts also after the
-- lease ended, until the job is claimed again. Compare-and-set on the lease; returns how many there were.
create or replace function pullgate.give_back(p_ids bigint[], p_leases uuid[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job pullgate.job;
  v_count integer := 0;
begin
  for v_job in select * from pullgate.lock_claims(p_ids, p_leases) loop
    v_count := v_count + 1;
    perform pullgate.undo_claim(v_job);
  end loop;
  return v_count;
end
$$;

-- Confirms that automatically acknowledged jobs were written to their executors: state delivered. A job with a
-- dedupe key keeps the key until its outcome is told, or for a day. Compare-and-set on the lease; returns how many.
create or replace function pullgate.confirm(p_ids bigint[], p_leases uuid[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job pullgate.job;
  v_count integer := 0;
begin
  for v_job in select * from pullgate.lock_claims(p_ids, p_leases) c where c.auto_ack loop
    v_count := v_count + 1;
    if v_job.dedupe_key is null then
      perform pullgate.finish(v_job, 'delivered');
    else
      update pullgate.job j set
          state = 'delivered', lease_ends_at = null, lease_check_at = clock_timestamp() + interval '1 day'
        where j.id = v_job.id;
    end if;
  end loop;
  return v_count;
end
$$;

-- Jobs whose connection broke while they were written, so that a byte may have reached the executor. One with
-- explicit acknowledgement was not written to its end, and under requeue goes back as if it had reached nobody;
-- otherwise on_lost decides, as it does when the lease ends: under orphan and fail a job of which a byte was written
-- is never handed out again by itself. Compare-and-set on the lease; returns how many.
create or replace function pullgate.doubt(p_ids bigint[], p_leases uuid[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job pullgate.job;
  v_count integer := 0;
begin
  for v_job in select * from pullgate.lock_claims(p_ids, p_leases) c where c.state = 'running' loop
    v_count := v_count + 1;
    if v_job.on_lost = 'requeue' and not v_job.auto_ack then
      perform pullgate.undo_claim(v_job);
    else
      perform pullgate.lose(v_job, true);
    end if;
  end loop;
  return v_count;
end
$$;
