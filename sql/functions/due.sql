-- Everything that happens because time has passed.

-- Offers in a row that may end without having been accepted: whoever is offered the job does not seem to get it. Nothing
-- else that costs no attempt has a ceiling. What is given back reached nobody. A release is the word of a living executor,
-- which knows that the job did not run; with a ceiling one broken executor could turn a topic into dead letters.
create or replace function pullgate.deliveries_max()
returns integer
language sql immutable parallel safe
return 20;

-- Counts by key, with one more of this one.
create or replace function pullgate.one_more(p_counts jsonb, p_key text)
returns jsonb
language sql immutable parallel safe
return p_counts || jsonb_build_object(p_key, coalesce((p_counts ->> p_key)::integer, 0) + 1);

-- The offer of a locked job ended and was not accepted: ready at once, no attempt spent, the delivery counted; `failed` if
-- that was the last one it may have. on_lost has no say, also where a byte was written: an executor whose subscription has
-- offerSeconds promises to start nothing before it has accepted, so such a job has not been run by it and never will be.
-- The lease stays: a late heartbeat or settle still counts until the job is claimed again. Returns its new state.
create or replace function pullgate.withdraw(p_job pullgate.job)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state text := case when p_job.unaccepted >= pullgate.deliveries_max() then 'failed' else 'ready' end;
begin
  p_job.last_error := case v_state
    when 'failed' then format('undeliverable: %s offers in a row were not accepted', p_job.unaccepted)
    else 'offer ended: it was not accepted'
  end;
  p_job.log := pullgate.logged(p_job, case v_state when 'failed' then 'undeliverable' else 'not accepted' end, v_state);
  if v_state = 'failed' then
    perform pullgate.finish(p_job, 'failed');
  else
    update pullgate.job j set
        state = 'ready', lease_check_at = null, pull_key = null, last_error = p_job.last_error, log = p_job.log,
        -- As in come_back.
        expires_at = case when j.expires_at is not null then greatest(j.expires_at, clock_timestamp()) end
      where j.id = p_job.id;
  end if;
  return v_state;
end
$$;

-- Makes due jobs ready, ends leases and offers, expires unstarted jobs: at most p_limit of each. Any gateway may call it at any
-- time; rows that another call has locked are skipped. Nothing is due at or before p_due_after (advance_marks).
-- What falls due within 10 ms is waited for, before anything is locked. Returns the topics that have ready jobs now,
-- counts by what became of the jobs (leases_lost, offers_ended: by their new state), whether a limit was reached, the milliseconds
-- waited, and how many jobs could neither be changed nor set aside: they are due still.
create or replace function pullgate.run_due(
  p_limit integer,
  p_due_after timestamptz,
  out topics bigint[],
  out promoted integer,
  out leases_checked integer,
  out leases_lost jsonb,
  out expired integer,
  out more boolean,
  out offers_ended jsonb,
  out waited_ms double precision,
  out stuck integer
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_after timestamptz := coalesce(p_due_after, '-infinity');
  v_job pullgate.job;
  v_held bigint[] := '{}';
  v_topics bigint[] := '{}';
  v_hows text[] := '{}';
  v_states text[];
  v_state text;
  v_due bigint[];
  v_expired bigint[];
  v_at timestamptz;
begin
  -- What is lost with an unflushed commit stays due, and is done again.
  perform set_config('synchronous_commit', 'off', true);
  -- A timer of the gateway is late by a millisecond or two, and its statement by its way here.
  v_at := (pullgate.next_due(v_after, v_now + interval '10 milliseconds')).at;
  waited_ms := 0;
  if v_at > v_now then
    perform pg_sleep(extract(epoch from v_at - v_now));
    waited_ms := 1000 * extract(epoch from clock_timestamp() - v_now);
    v_now := clock_timestamp();
  end if;
  leases_checked := 0;
  leases_lost := '{}';
  offers_ended := '{}';
  select coalesce(array_agg(distinct d.topic_id), '{}'), coalesce(array_agg(d.id), '{}') into topics, v_due
    from (
      select j.id, j.topic_id from pullgate.job j
        where j.state = 'scheduled' and j.due_at > v_after and j.due_at <= v_now
          and (j.expires_at is null or j.expires_at > v_now)
        order by j.due_at limit p_limit
        for update skip locked
    ) d;
  promoted := pullgate.change_all(v_due, 'ready');
  stuck := cardinality(v_due) - promoted;

  for v_job in
    select j.* from pullgate.job j where j.lease_check_at > v_after and j.lease_check_at <= v_now
      order by j.lease_check_at limit p_limit
      for update skip locked
  loop
    if v_job.lease_ends_at > v_now then
      update pullgate.job j set lease_check_at = v_job.lease_ends_at where j.id = v_job.id;
      leases_checked := leases_checked + 1;
      continue;
    end if;
    v_held := v_held || v_job.id;
    v_topics := v_topics || v_job.topic_id;
    v_hows := v_hows || case v_job.state
      when 'delivered' then 'key released' when 'offered' then 'offer ended' else 'lease ended' end;
  end loop;
  v_states := pullgate.end_holds(v_held, v_hows);
  for v_place in 1..cardinality(v_held) loop
    v_state := v_states[v_place];
    if v_state is null then
      stuck := stuck + 1;
      continue;
    end if;
    leases_checked := leases_checked + 1;
    if v_hows[v_place] = 'offer ended' then
      offers_ended := pullgate.one_more(offers_ended, v_state);
    elsif v_hows[v_place] = 'lease ended' then
      leases_lost := pullgate.one_more(leases_lost, v_state);
    end if;
    if v_state = 'ready' and not v_topics[v_place] = any (topics) then
      topics := topics || v_topics[v_place];
    end if;
  end loop;

  v_expired := array(
    select j.id from pullgate.job j
      where j.expires_at > v_after and j.expires_at <= v_now and j.expires_at is not null
        and j.state in ('scheduled', 'ready')
      order by j.expires_at limit p_limit
      for update skip locked);
  expired := pullgate.change_all(v_expired, 'expired');
  stuck := stuck + cardinality(v_expired) - expired;
  more := greatest(promoted, leases_checked, expired) >= p_limit;
end
$$;

-- run_due, then claim, in one statement: what falls due reaches a parked pull without another round trip. Returns the
-- rows of the claim, and a note `due` with run_due's result as a JSON object in job_spec, `topics` as texts.
-- What run_due has made ready is visible to the claim: both are volatile, and each statement in them has a snapshot of
-- its own. Of topics that have ready jobs after the claim others are notified, as after run_due alone; what has been
-- claimed is nobody's business. Locks: SKIP LOCKED on jobs.
create or replace function pullgate.claim_due(
  p_limit integer,
  p_due_after timestamptz,
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
  v_durable text := current_setting('synchronous_commit');
  v_notify text := coalesce(current_setting('pullgate.notify', true), '');
  v_now timestamptz;
  v_due record;
begin
  perform set_config('pullgate.notify', 'off', true);
  select d.topics::text[] as topics, d.promoted, d.leases_checked, d.leases_lost, d.offers_ended, d.expired, d.more, d.waited_ms,
      d.stuck
    into v_due
    from pullgate.run_due(p_limit, p_due_after) d;
  -- A claim whose commit a crash undoes is handed out, and handed out again: not what run_due takes for itself.
  perform set_config('synchronous_commit', v_durable, true);
  perform set_config('pullgate.notify', v_notify, true);
  return query select * from pullgate.claim(
    p_topics, p_subscriptions, p_counts, p_lanes, p_marks, p_gateway, p_claim, p_keys);
  if cardinality(v_due.topics) > 0 then
    v_now := clock_timestamp();
    -- Whether a topic that was claimed from has more is worth a look; of the others there are no marks here.
    perform pullgate.notify(t.id, v_now, v_now)
      from unnest(v_due.topics::bigint[]) as t (id)
      where t.id <> all (p_topics) or t.id = any (pullgate.ready_topics(p_topics, p_lanes, p_marks, 0));
  end if;
  note := 'due';
  job_spec := to_json(v_due);
  return next;
end
$$;

-- Upkeep, once a minute by whichever gateway gets the lock: empties the history slots of days past history_days,
-- ends idle subscriptions, forgets those that ended 14 days ago. Returns the history days dropped.
create or replace function pullgate.upkeep()
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_setting pullgate.setting;
  v_today integer := floor(extract(epoch from clock_timestamp()) / 86400);
  v_filled boolean;
  v_holding uuid[];
  v_dropped integer := 0;
  v_ended integer;
begin
  if not pg_try_advisory_xact_lock(hashtext('pullgate.upkeep')) then
    return 0;
  end if;
  select * into v_setting from pullgate.setting;
  -- Read once, whatever the planner thinks of their number: it could look at all held jobs for each subscription.
  v_holding := array(
    select distinct j.subscription_id from pullgate.job j
      where j.lease_check_at is not null and j.subscription_id is not null);
  with idle as (
    update pullgate.subscription s set ended_at = clock_timestamp()
    where s.id = any (array(
      select i.id from pullgate.subscription i
        where i.ended_at is null
          and greatest(i.created_at, i.last_pull_at)
            < clock_timestamp() - make_interval(days => v_setting.subscription_idle_days)
          and i.id <> all (v_holding)
        -- One that is being pulled from at this moment is not idle.
        for update skip locked))
    returning s.id
  )
  select count(pg_notify('pullgate_wake', 'ended:' || i.id)) into v_ended from idle i;
  delete from pullgate.subscription s where s.ended_at < clock_timestamp() - interval '14 days';
  -- Of gateways that died.
  delete from pullgate.armed a where a.until < clock_timestamp() - interval '1 minute';
  -- A reader of a whole slot may hold its lock; then the next minute will do.
  perform set_config('lock_timeout', '100ms', true);
  for v_slot in 0..31 loop
    -- Its rows are of the last day that had this slot, or of an earlier turn of the ring: nothing is written to it
    -- now, and no row has to be read to know that all are old enough.
    continue when (v_today - v_slot) % 32 <= v_setting.history_days;
    execute format('select exists (select from pullgate.history_%s)', lpad(v_slot::text, 2, '0')) into v_filled;
    if v_filled then
      begin
        execute format('truncate pullgate.history_%s', lpad(v_slot::text, 2, '0'));
        v_dropped := v_dropped + 1;
      exception
        when lock_not_available then null;
      end;
    end if;
  end loop;
  return v_dropped;
end
$$;
