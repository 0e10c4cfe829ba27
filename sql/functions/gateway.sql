-- Gateways: who lives, and what becomes of the jobs that one has claimed and nobody has confirmed (job.unconfirmed).
--
-- A gateway is a session: the one that listens takes an id and a lock on it, and loses both together. Whoever finds the
-- lock of another's id free for 2 s gives back what was claimed under it more than 2 s ago: bury. A gateway that lives
-- and has lost its session does so itself, under its next id: retire. They do not both act on a job: a gateway hands out
-- what it claimed within a second of asking for it (refresh_claims prolongs that), and nothing that it had claimed under
-- an id it has lost; what either of them takes back is a compare-and-set on the row as it is when locked. A process that
-- is frozen between its last look at the clock and the write to the socket is the gap that remains.
--
-- Jobs are locked by id. A new claim of a job overwrites gateway_id, claim_id and claimed_at.

-- This session's id as a gateway, a fresh one, with a lock on it until the session ends. If its host is lost, the server
-- ends it within some 10 s rather than after the two hours that are usual.
create or replace function pullgate.join_gateway()
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  perform set_config('tcp_keepalives_idle', '5', false);
  perform set_config('tcp_keepalives_interval', '2', false);
  perform set_config('tcp_keepalives_count', '3', false);
  perform set_config('tcp_user_timeout', '10000', false);
  -- Drawn at random: after a failover that has lost the last of a sequence, it would hand out ids that live or that
  -- their former owners still give back jobs of.
  while v_id is null loop
    insert into pullgate.gateway (id) values (1 + floor(random() * 2147483646))
      on conflict (id) do nothing
      returning id into v_id;
  end loop;
  -- Nobody sees the row before this commits, locked.
  perform pg_advisory_lock(hashtext('pullgate.gateway'), v_id);
  return v_id;
end
$$;

-- Whether the gateway's session has ended. Shared, so that those who look do not hide it from each other; let go of when
-- the transaction ends.
create or replace function pullgate.is_unlocked(p_gateway integer)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_try_advisory_xact_lock_shared(hashtext('pullgate.gateway'), p_gateway);
end
$$;

-- The unconfirmed jobs that were claimed under these ids before p_before, locked in the order of their ids. No such
-- hold lasts for a minute, so those claimed 2 minutes ago are run_due's.
create or replace function pullgate.lock_unconfirmed(p_gateways integer[], p_before timestamptz)
returns setof pullgate.job
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of a variable the index makes a bound; with the function in its place it would walk what was confirmed long ago.
  v_after timestamptz := clock_timestamp() - interval '2 minutes';
begin
  return query
    select j.* from pullgate.job j
      where j.unconfirmed and j.gateway_id = any (p_gateways)
        and j.claimed_at > v_after and j.claimed_at <= p_before
      -- Not j.id alone: that would be an index to walk from end to end.
      order by j.id + 0
      for update;
end
$$;

-- Forgets the gateways of which nothing is left to give back. What a claim leaves that commits only then is given back by
-- the end of its hold: 15 s, or its offer's time.
create or replace function pullgate.forget_gateways(p_gateways integer[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_after timestamptz := clock_timestamp() - interval '2 minutes';
begin
  delete from pullgate.gateway g
    where g.id = any (array(select d.id from pullgate.gateway d where d.id = any (p_gateways) order by d.id for update))
      and not exists (
        select from pullgate.job j
          where j.unconfirmed and j.gateway_id = g.id and j.claimed_at > v_after
          offset 0);
end
$$;

-- For others to call when these gateways have died: what they had claimed more than 2 s ago is in doubt, and on_lost
-- decides, as in pullgate.doubt; offers end, as at the end of their time. An id whose lock is held is left alone. Returns
-- the number of jobs.
create or replace function pullgate.bury(p_gateways integer[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_dead integer[] := array(select g.id from unnest(p_gateways) as g (id) where pullgate.is_unlocked(g.id));
  v_ids bigint[];
  v_hows text[];
begin
  select coalesce(array_agg(u.id), '{}'),
      coalesce(array_agg(case u.state when 'offered' then 'offer ended' else 'in doubt' end), '{}')
    into v_ids, v_hows
    from pullgate.lock_unconfirmed(v_dead, clock_timestamp() - interval '2 seconds') u;
  perform pullgate.end_holds(v_ids, v_hows);
  perform pullgate.forget_gateways(v_dead);
  return cardinality(v_ids);
end
$$;

-- For a gateway to call of ids that it has had: the jobs that it still holds (p_ids, p_leases), which it is writing or
-- has yet to report, go over to its new id, p_heir; the others reached nobody and are given back, no attempt spent. Offers
-- go over, too: nobody reports that one was written, and what was not is given back by whoever had the claim's answer.
-- With p_heir 0 there is no new id: the gateway stops. Returns how many were given back.
create or replace function pullgate.retire(p_gateways integer[], p_heir integer, p_ids bigint[], p_leases uuid[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kept bigint[];
  v_returned bigint[];
begin
  select coalesce(array_agg(u.id) filter (where u.kept), '{}'), coalesce(array_agg(u.id) filter (where not u.kept), '{}')
    into v_kept, v_returned
    from (
      select u.id, h.id is not null or u.state = 'offered' as kept
        from pullgate.lock_unconfirmed(p_gateways, 'infinity') u
        left join unnest(p_ids, p_leases) as h (id, lease) on h.id = u.id and h.lease = u.lease
    ) u;
  perform pullgate.end_holds(v_returned, array_fill('undelivered'::text, array[cardinality(v_returned)]));
  update pullgate.job j set gateway_id = p_heir where j.id = any (v_kept);
  perform pullgate.forget_gateways(p_gateways);
  return cardinality(v_returned);
end
$$;

-- Claims whose answer came late, made as if now, if they still count: nobody else gives them back for 2 s from now.
-- Compare-and-set on the lease; returns the leases that do, and when they end.
create or replace function pullgate.refresh_claims(p_ids bigint[], p_leases uuid[])
returns table (lease uuid, lease_ends_at timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  return query
    update pullgate.job j set
        claimed_at = v_now,
        lease_ends_at = j.lease_ends_at + (v_now - j.claimed_at),
        lease_check_at = j.lease_check_at + (v_now - j.claimed_at)
      where j.id = any (array(select c.id from pullgate.lock_claims(p_ids, p_leases) c where c.unconfirmed))
      returning j.lease, j.lease_ends_at;
end
$$;

-- With what lengths, in seconds, a hold of these subscriptions can begin (pullgate.claim).
create or replace function pullgate.first_holds(p_subscriptions uuid[])
returns setof integer
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select 15
  union
  select coalesce(s.offer_seconds, s.lease_seconds) from pullgate.subscription s where s.id = any (p_subscriptions)
$$;

-- Gives back, no attempt spent, what claim statements took whose answer their gateway never got; they were sent in the
-- last p_seconds, for these subscriptions. Returns the number of jobs.
--
-- Nothing that was handed out is given back. A claim's number is drawn for it alone and written by the update that takes
-- the job; the gateway hands out from answers, each as a whole, and the numbers here are of statements that it has given
-- up waiting for. The next claim of the job overwrites the number, and a pull that had it again by its key marks it. So a
-- job that is held, is not marked, and bears one has reached nobody; it is looked at once more when it is locked.
--
-- There is no index on the number, which every claim would pay for. A hold that nobody has renewed is looked at when its
-- first length has passed since its claim, so these are found where job_lease_check has the claims of that time.
create or replace function pullgate.give_back_unheard(
  p_claims bigint[],
  p_subscriptions uuid[],
  p_seconds double precision
)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_hold interval;
  v_found bigint[] := '{}';
begin
  for v_hold in select make_interval(secs => h.seconds) from pullgate.first_holds(p_subscriptions) as h (seconds) loop
    v_found := v_found || array(
      select j.id from pullgate.job j
        -- Clocks of servers that take over from each other differ a little.
        where j.lease_check_at > v_now - make_interval(secs => p_seconds + 5) + v_hold
          and j.lease_check_at <= v_now + interval '5 seconds' + v_hold
          and j.claim_id = any (p_claims) and not j.given_again and j.state in ('offered', 'running'));
  end loop;
  v_found := array(
    select j.id from pullgate.job j
      where j.id = any (v_found) and j.claim_id = any (p_claims) and not j.given_again
        and j.state in ('offered', 'running') and j.settled is null
      order by j.id
      for update);
  perform pullgate.end_holds(v_found, array_fill('undelivered'::text, array[cardinality(v_found)]));
  return cardinality(v_found);
end
$$;
