-- Subscriptions: an executor pool's standing claim on topics. Immutable; ended, never changed.

-- Creates a subscription, and the topics it names where they do not exist. With the name of a live subscription
-- of the same settings it returns that one. Raises PL001, PL002, and PL009 if the name's settings differ.
create or replace function pullgate.subscribe(
  p_topics text[],
  p_name text,
  p_ack text,
  p_lease_seconds integer,
  p_max_parked integer,
  p_offer_seconds integer default null
)
returns setof pullgate.subscription
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_topic text;
  v_subscription pullgate.subscription;
begin
  -- In the order of the names, so that two subscribers cannot wait for each other.
  for v_topic in select t.name from unnest(p_topics) as t (name) order by t.name loop
    perform pullgate.check_topic_name(v_topic);
    perform pullgate.announce_topic(v_topic);
    insert into pullgate.topic (id, name) values (pullgate.topic_id(v_topic), v_topic) on conflict (id) do nothing;
  end loop;
  loop
    insert into pullgate.subscription as s (name, topics, ack, lease_seconds, max_parked, offer_seconds)
      values (p_name, p_topics, p_ack, p_lease_seconds, p_max_parked, p_offer_seconds)
      on conflict (name) where ended_at is null do nothing
      returning s.* into v_subscription;
    exit when found;
    select s.* into v_subscription from pullgate.subscription s where s.name = p_name and s.ended_at is null;
    exit when found;
  end loop;
  -- The order of the topics means nothing.
  if not (v_subscription.topics @> p_topics and v_subscription.topics <@ p_topics)
    or (v_subscription.ack, v_subscription.lease_seconds, v_subscription.max_parked, v_subscription.offer_seconds)
      is distinct from (p_ack, p_lease_seconds, p_max_parked, p_offer_seconds)
  then
    raise exception 'a subscription with this name has other settings'
      using errcode = 'PL009', hint = 'Use the same settings, another name, or end that subscription first.';
  end if;
  return next v_subscription;
end
$$;

-- Ends a subscription: no claim is made for it any more. With p_release its offered and running jobs are given back
-- as by release; not those that are handed over with automatic acknowledgement at this moment, whose gateway knows whether
-- an executor has them. False if it had ended already, null if it is unknown.
create or replace function pullgate.unsubscribe(p_id uuid, p_release boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended boolean;
  v_held bigint[];
begin
  update pullgate.subscription s set ended_at = clock_timestamp() where s.id = p_id and s.ended_at is null;
  v_ended := found;
  if not v_ended and not exists (select from pullgate.subscription s where s.id = p_id) then
    return null;
  end if;
  if v_ended then
    perform pg_notify('pullgate_wake', 'ended:' || p_id);
  end if;
  if p_release then
    -- Locked: whoever released a job meanwhile, or claimed it since, is asked again whether it is this subscription's.
    v_held := array(
      select j.id from pullgate.job j
        where j.lease_check_at is not null and j.subscription_id = p_id and j.state in ('offered', 'running')
          and not j.auto_ack
        order by j.id + 0
        for update);
    perform pullgate.end_holds(v_held, array_fill('released'::text, array[cardinality(v_held)]));
  end if;
  return v_ended;
end
$$;

-- One subscription, or all live ones, with the number of jobs each holds.
create or replace function pullgate.read_subscriptions(p_id uuid default null)
returns table (
  id uuid,
  name text,
  topics text[],
  ack text,
  lease_seconds integer,
  max_parked integer,
  created_at timestamptz,
  last_pull_at timestamptz,
  ended_at timestamptz,
  jobs_held integer,
  offer_seconds integer
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  -- Counted once, in one value: a join of the counts would be a matter of estimates.
  with held as materialized (
    select jsonb_object_agg(c.id, c.jobs) as by_id
      from (
        select j.subscription_id as id, count(*) as jobs from pullgate.job j
          where j.lease_check_at is not null and j.subscription_id is not null and j.state in ('offered', 'running')
            and (p_id is null or j.subscription_id = p_id)
          group by j.subscription_id) c
  )
  select s.id, s.name, s.topics, s.ack, s.lease_seconds, s.max_parked, s.created_at, s.last_pull_at, s.ended_at,
      coalesce(((select h.by_id from held h) ->> s.id::text)::integer, 0), s.offer_seconds
    from pullgate.subscription s
    -- One or all, by one bound of the index.
    where s.id between coalesce(p_id, '00000000-0000-0000-0000-000000000000')
        and coalesce(p_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      and (p_id is not null or s.ended_at is null)
    order by s.created_at, s.id
    limit 1000
$$;

-- Records that the subscriptions were pulled from (to the minute).
create or replace function pullgate.touch_subscriptions(p_ids uuid[])
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  update pullgate.subscription s set last_pull_at = clock_timestamp()
    where s.id = any (array(
      select t.id from pullgate.subscription t
        where t.id = any (p_ids) and t.last_pull_at is distinct from clock_timestamp()
          and (t.last_pull_at is null or t.last_pull_at < clock_timestamp() - interval '1 minute')
        order by t.id
        for update))
$$;
