-- Looking without claiming: what is ready, what falls due, what has ended.

-- Which of the topics have a ready job above their lanes' marks that has been claimable for p_ready_ms; with 0 whatever
-- a claim would see. By plain read: a job that another claim has locked counts until that commits.
create or replace function pullgate.ready_topics(
  p_topics bigint[],
  p_lanes bigint[],
  p_marks bigint[],
  p_ready_ms integer
)
returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  return array(
    select t.id from unnest(p_topics) as t (id)
      where exists (
        select from pullgate.lane_twin l
          cross join lateral (
            select from pullgate.job j
              where j.lane_id = l.id and j.state = 'ready'
                and j.seq > pullgate.mark_of(l.id, p_lanes, p_marks)
                and (j.expires_at is null or j.expires_at > v_now)
                and (p_ready_ms = 0 or j.due_at <= v_now - make_interval(secs => p_ready_ms / 1000.0))
              order by j.seq limit 1) as head
          where l.topic_id = t.id
          offset 0)
        and not exists (select from pullgate.topic p where p.id = t.id and p.paused offset 0));
end
$$;

-- The first instant after p_after, up to p_upto, at which anything is due: a scheduled job, a look at a lease, a
-- deadline. Null if none is. Bounded on both sides: the indexes hold entries of jobs that ended long before or after.
-- topic_id is the topic that has a ready job then, as far as can be told: null for a deadline, and for a lease that was
-- renewed or that does not end in a requeue (an offer does).
create or replace function pullgate.next_due(
  p_after timestamptz,
  p_upto timestamptz,
  out at timestamptz,
  out topic_id bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select d.at, d.topic_id into at, topic_id
      from (
        (select j.due_at as at, j.topic_id from pullgate.job j
          where j.state = 'scheduled' and j.due_at > p_after and j.due_at <= p_upto
          order by j.due_at limit 1)
        union all
        (select j.lease_check_at,
            case when (j.on_lost = 'requeue' or j.state = 'offered') and j.lease_ends_at <= j.lease_check_at then j.topic_id end
          from pullgate.job j
          where j.lease_check_at > p_after and j.lease_check_at <= p_upto
          order by j.lease_check_at limit 1)
        union all
        (select j.expires_at, null from pullgate.job j
          where j.expires_at is not null and j.state in ('scheduled', 'ready')
            and j.expires_at > p_after and j.expires_at <= p_upto
          order by j.expires_at limit 1)
      ) d
      order by d.at limit 1;
end
$$;

-- What a gateway looks for without claiming. One statement, no locks. The backstop asks it once a second while anyone
-- waits; a gateway that has just armed topics asks until nothing published in silence can be left.
--   p_topics     topics with waiters on this gateway; those with a job that has been claimable for p_ready_ms come back
--                in ready_topics; with 0 whatever a claim would see
--   p_lanes, p_marks, p_due_after   as for claim and run_due
--   p_fence      whether to draw a fresh transaction id: `fence`
--   horizon      every transaction whose id is lower had ended before anything here was looked at
--   ended        subscriptions that ended in the last 10 s, so that their pulls can be answered
--   due_in_ms    until the next due instant of any kind, if it is within 2 s (0: it has passed)
--   due_topic    the topic that has a ready job then (next_due)
--   p_gateways   whether to look for gateways whose lock is free: `unlocked`
create or replace function pullgate.look(
  p_topics bigint[],
  p_lanes bigint[],
  p_marks bigint[],
  p_due_after timestamptz,
  p_ready_ms integer,
  p_fence boolean,
  p_gateways boolean default false,
  out ready_topics bigint[],
  out ended uuid[],
  out due_in_ms double precision,
  out fence xid8,
  out horizon xid8,
  out due_topic bigint,
  out unlocked integer[]
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_at timestamptz;
begin
  if p_fence then
    fence := pg_current_xact_id();
  end if;
  -- Volatile: each statement has a snapshot of its own, so those below see all that had ended by this one.
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  ready_topics := pullgate.ready_topics(p_topics, p_lanes, p_marks, p_ready_ms);
  ended := array(select s.id from pullgate.subscription s where s.ended_at > v_now - interval '10 seconds');
  select n.at, n.topic_id into v_at, due_topic
    from pullgate.next_due(coalesce(p_due_after, '-infinity'), v_now + interval '2 seconds') n;
  -- greatest(0, null) is 0.
  due_in_ms := case when v_at is not null then greatest(0, 1000 * extract(epoch from v_at - v_now)) end;
  if p_gateways then
    unlocked := array(select g.id from pullgate.gateway g where pullgate.is_unlocked(g.id));
  end if;
end
$$;
