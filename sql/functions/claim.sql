-- Claiming: the one way a job is handed out, and the ways a claim is taken back or confirmed.

-- Claims jobs for parked pulls, of one topic or several.
--   p_topics, p_subscriptions, p_counts   slots, run-length, in the order of the waiters: so many jobs of this topic for
--                                         this subscription
--   p_lanes, p_marks                      no ready job of such a lane has a seq up to its mark (advance_marks); lanes ascend
--   p_gateway, p_claim                    who claims, and a number of this very statement's own: see gateway.sql
--   p_keys                                per slot null, or the key under which its jobs can be had again (give_again)
-- Returns a row per job, a topic's in hand-out order: `slot` is the index into the arrays (from 1). A row without a job
-- is a note on its slot: `ended`, its subscription has, and it gets none; `left`, its topic came back short, but ready
-- jobs are visible, which another claim has locked or which have come since.
-- Locks: SKIP LOCKED on the jobs it takes, nothing else. It never waits.
create or replace function pullgate.claim(
  p_topics bigint[],
  p_subscriptions uuid[],
  p_counts integer[],
  p_lanes bigint[],
  p_marks bigint[],
  p_gateway integer default 0,
  p_claim bigint default 0,
  p_keys uuid[] default null
)
returns table (
  slot integer,
  note text,
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
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_autos boolean[];
  v_leases integer[];
  v_offers integer[];
  v_topic record;
  v_lane bigint;
  v_mark bigint;
  v_taken bigint[];
  v_ids bigint[] := '{}';
  v_slots integer[] := '{}';
  v_short bigint[] := '{}';
  v_ready bigint[];
begin
  select array_agg(s.ack = 'auto' order by w.slot), array_agg(s.lease_seconds order by w.slot),
      array_agg(s.offer_seconds order by w.slot)
    into v_autos, v_leases, v_offers
    from unnest(p_subscriptions) with ordinality as w (subscription_id, slot)
    left join pullgate.subscription s on s.id = any (array[w.subscription_id])
      -- By id, not by the index of all that live.
      and coalesce(s.ended_at, 'infinity') = 'infinity';

  -- Of many topics most have nothing: one statement finds out, in place of three for each.
  if cardinality(p_topics) > 1 then
    v_ready := pullgate.ready_topics(p_topics, p_lanes, p_marks, 0);
  end if;
  for v_topic in
    select w.topic_id as id, sum(w.wanted)::integer as wanted
      from unnest(p_topics, p_counts, v_autos) with ordinality as w (topic_id, wanted, auto, slot)
      where w.auto is not null
        and not exists (select from pullgate.topic t where t.id = w.topic_id and t.paused offset 0)
        and (cardinality(p_topics) = 1 or w.topic_id = any (v_ready))
      group by w.topic_id
      order by min(w.slot)
  loop
    v_taken := '{}';
    for v_lane in
      select t.id from pullgate.lane_twin t
        where t.topic_id = v_topic.id
        group by t.id, t.priority, t.turn
        order by t.priority desc, t.turn
    loop
      v_mark := pullgate.mark_of(v_lane, p_lanes, p_marks);
      v_taken := v_taken || array(
        select j.id from pullgate.job j
          where j.lane_id = v_lane and j.state = 'ready' and j.seq > v_mark
            and (j.expires_at is null or j.expires_at > v_now)
          order by j.seq
          limit v_topic.wanted - cardinality(v_taken)
          for update skip locked);
      exit when cardinality(v_taken) >= v_topic.wanted;
    end loop;
    if cardinality(v_taken) > 0 then
      v_ids := v_ids || v_taken;
      v_slots := v_slots || array(
        select w.slot::integer
          from unnest(p_topics, p_counts, v_autos) with ordinality as w (topic_id, wanted, auto, slot)
          cross join generate_series(1, w.wanted)
          where w.topic_id = v_topic.id and w.auto is not null
          order by w.slot
          limit cardinality(v_taken));
    end if;
    if cardinality(v_taken) < v_topic.wanted then
      v_short := v_short || v_topic.id;
    end if;
  end loop;

  if cardinality(v_ids) > 0 then
    return query
      with taken as (
        update pullgate.job j set
            state = case when i.offer then 'offered' else 'running' end,
            -- That of an offer is counted when it is accepted.
            attempts = j.attempts + (not i.offer)::integer,
            unaccepted = case when i.offer then j.unaccepted + 1 else 0 end,
            -- Releases have no ceiling; a claim that failed on one job would fail for its whole topic.
            deliveries = least(j.deliveries::integer + 1, 32767),
            claimed_at = v_now,
            lease = gen_random_uuid(),
            settled = null,
            lease_ends_at = i.held_until,
            lease_check_at = i.held_until,
            subscription_id = p_subscriptions[i.slot],
            pull_key = p_keys[i.slot],
            given_again = false,
            auto_ack = v_autos[i.slot],
            gateway_id = p_gateway,
            claim_id = p_claim
          from (
            select u.*,
                -- Until an automatic acknowledgement is confirmed the job runs under a short lease of its own (first_holds).
                v_now + make_interval(secs => case
                  when v_autos[u.slot] then 15
                  else coalesce(v_offers[u.slot], v_leases[u.slot])
                end) as held_until,
                v_offers[u.slot] is not null as offer
              from unnest(v_ids, v_slots) with ordinality as u (id, slot, position)
          ) i
          where j.id = any (array[i.id])
          returning i.position, i.slot, j.id, j.lease, j.lease_ends_at, j.attempts + i.offer::integer as attempt,
            j.deliveries, j.created_at, j.due_at, j.traceparent, j.job_spec
      )
      select t.slot, null, t.id, t.lease, v_leases[t.slot], t.lease_ends_at, t.attempt, t.deliveries > 1,
          t.created_at, extract(epoch from v_now - t.due_at)::double precision, t.traceparent, t.job_spec
        from taken t
        order by t.position;
  end if;

  if array_position(v_autos, null) is not null then
    return query
      select w.slot::integer, 'ended', null::bigint, null::uuid, null::integer, null::timestamptz, null::integer,
          null::boolean, null::timestamptz, null::double precision, null::text, null::text
        from unnest(v_autos) with ordinality as w (auto, slot)
        where w.auto is null;
  end if;
  if cardinality(v_short) > 0 then
    v_ready := pullgate.ready_topics(v_short, p_lanes, p_marks, 0);
    return query
      select min(w.slot)::integer, 'left', null::bigint, null::uuid, null::integer, null::timestamptz, null::integer,
          null::boolean, null::timestamptz, null::double precision, null::text, null::text
        from unnest(p_topics) with ordinality as w (topic_id, slot)
        where w.topic_id = any (v_ready)
        group by w.topic_id;
  end if;
end
$$;

-- A locked job as it was before its last claim, but for its place: it comes back to the returned twin. Returns its new state.
create or replace function pullgate.undo_claim(p_job pullgate.job)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- That of an offer was not counted.
  p_job.attempts := p_job.attempts - (p_job.unaccepted = 0)::integer;
  p_job.deliveries := p_job.deliveries - 1;
  if p_job.cancel_reason is not null then
    perform pullgate.finish(p_job, 'cancelled');
    return 'cancelled';
  end if;
  update pullgate.job j set
      state = 'ready', attempts = p_job.attempts, deliveries = p_job.deliveries,
      unaccepted = greatest(j.unaccepted - 1, 0), pull_key = null, lease = null, lease_ends_at = null, lease_check_at = null,
      -- As in come_back.
      expires_at = case when j.expires_at is not null then greatest(j.expires_at, clock_timestamp()) end
    where j.id = p_job.id;
  return 'ready';
end
$$;

-- The jobs of these claims, locked in the order of their ids, as by every function that locks several: those whose
-- lease still counts, also after it ended. Not those that were given again since.
create or replace function pullgate.lock_claims(p_ids bigint[], p_leases uuid[])
returns setof pullgate.job
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select j.* from pullgate.job j
      join unnest(p_ids, p_leases) as p (id, lease) on j.id = any (array[p.id]) and j.lease = p.lease
      where j.settled is null and not j.given_again and j.state in ('offered', 'running', 'ready', 'orphaned')
      order by p.id
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
  v_ids bigint[] := array(select c.id from pullgate.lock_claims(p_ids, p_leases) c);
begin
  perform pullgate.end_holds(v_ids, array_fill('undelivered'::text, array[cardinality(v_ids)]));
  return cardinality(v_ids);
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
  v_over bigint[];
  v_keyed bigint[];
begin
  select coalesce(array_agg(c.id) filter (where c.dedupe_key is null), '{}'),
      coalesce(array_agg(c.id) filter (where c.dedupe_key is not null), '{}')
    into v_over, v_keyed
    from pullgate.lock_claims(p_ids, p_leases) c
    where c.auto_ack;
  perform pullgate.change_all(v_over, 'delivered');
  perform pullgate.change_all(v_keyed, 'keyed');
  return cardinality(v_over) + cardinality(v_keyed);
end
$$;

-- Jobs whose connection broke while they were written, so that a byte may have reached the executor. One with
-- explicit acknowledgement was not written to its end, and under requeue goes back as if it had reached nobody;
-- otherwise on_lost decides, as it does when the lease ends: under orphan and fail a job of which a byte was written
-- is never handed out again by itself. An offer goes back in any case, as it does when it ends (withdraw): whoever it was
-- written to starts nothing before having accepted it. One with a key that on_lost would not requeue stays as it is: its
-- executor asks for it again (give_again), else its lease ends. Compare-and-set on the lease; returns how many.
create or replace function pullgate.doubt(p_ids bigint[], p_leases uuid[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_hows text[];
begin
  select coalesce(array_agg(d.id), '{}'), coalesce(array_agg(d.how), '{}') into v_ids, v_hows
    from (
      select c.id, case
          when c.state = 'offered' or c.on_lost = 'requeue' and not c.auto_ack then 'undelivered'
          when c.pull_key is null then 'in doubt'
        end as how
        from pullgate.lock_claims(p_ids, p_leases) c where c.state in ('offered', 'running')
    ) d
    where d.how is not null;
  perform pullgate.end_holds(v_ids, v_hows);
  return cardinality(v_ids);
end
$$;
