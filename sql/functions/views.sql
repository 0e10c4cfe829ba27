-- For people and monitors: views, counts, one job in full.

-- Why a job is not running, for people; null if it runs or has ended.
create or replace function pullgate.pending(p_state text, p_deliveries smallint, p_paused boolean)
returns text
language sql immutable parallel safe
return case p_state
  when 'scheduled' then case when p_deliveries > 0 then 'retry-later' else 'not-due' end
  when 'ready' then case when p_paused then 'topic-paused' else 'waiting-for-executor' end
  when 'offered' then 'waiting-for-acceptance'
  when 'orphaned' then 'waiting-for-decision'
end;

-- Live and finished jobs, without specs and leases. result and progress are JSON texts. A lease that ended still counts
-- until its job is claimed again, but is shown only while the job is offered or running.
create or replace view pullgate.jobs as
  select j.id, n.name as topic, j.state, j.priority, j.attempts, j.max_attempts, j.deliveries, j.created_at, j.due_at,
      j.claimed_at, null::timestamptz as finished_at,
      case when j.state in ('offered', 'running') then j.lease_ends_at end as lease_ends_at, j.expires_at, j.on_lost,
      j.auto_ack, j.dedupe_key, j.subscription_id, j.cancel_reason, j.last_error, null::text as result, j.progress,
      pullgate.pending(
        j.state, j.deliveries, (select t.paused from pullgate.topic t where t.id = j.topic_id)) as pending
    from pullgate.job j
    left join lateral (select l.topic as name from pullgate.lane l where l.topic_id = j.topic_id limit 1) n on true
  union all
  select h.id, n.name, h.state, h.priority, h.attempts, h.max_attempts, h.deliveries, h.created_at, h.due_at,
      h.claimed_at, h.finished_at, null, h.expires_at, h.on_lost, h.auto_ack, h.dedupe_key, h.subscription_id,
      h.cancel_reason, h.last_error, h.result, h.progress, null
    from pullgate.history h
    left join lateral (select l.topic as name from pullgate.lane l where l.topic_id = h.topic_id limit 1) n on true;

-- Counts of live jobs per topic and state, and since when the oldest ready one waits. Cost: the ready index, and
-- the rows that are scheduled or held.
create or replace function pullgate.count_jobs(p_topic bigint default null)
returns table (topic_id bigint, state text, jobs bigint, oldest_due_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with lane as (
    select distinct twin.id, l.topic_id
      from pullgate.lane l
      cross join lateral (values (l.id), (l.id | 1)) as twin (id)
      -- One topic or all, by one bound of the index.
      where l.topic_id between coalesce(p_topic, '-9223372036854775808') and coalesce(p_topic, '9223372036854775807')
  )
  select l.topic_id, 'ready', sum(c.jobs)::bigint, min(c.oldest_due_at)
    from lane l
    cross join lateral (
      select count(*) as jobs,
          (select h.due_at from pullgate.job h where h.lane_id = l.id and h.state = 'ready' order by h.seq limit 1)
            as oldest_due_at
        from pullgate.job j where j.lane_id = l.id and j.state = 'ready') c
    where c.jobs > 0
    group by l.topic_id
  union all
  select j.topic_id, 'scheduled', count(*), null from pullgate.job j
    where j.state = 'scheduled' and (p_topic is null or j.topic_id = p_topic) group by j.topic_id
  union all
  select j.topic_id, j.state, count(*), null from pullgate.job j
    where j.lease_check_at is not null and (p_topic is null or j.topic_id = p_topic) group by j.topic_id, j.state
  union all
  select j.topic_id, 'orphaned', count(*), null from pullgate.job j
    where j.state = 'orphaned'
      and j.topic_id between coalesce(p_topic, '-9223372036854775808') and coalesce(p_topic, '9223372036854775807')
    group by j.topic_id
$$;

-- Every topic with its settings.
create or replace function pullgate.read_topics(p_topic bigint default null)
returns table (id bigint, name text, paused boolean, max_attempts integer, on_lost text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(t.id, l.topic_id), coalesce(t.name, l.topic), coalesce(t.paused, false), coalesce(t.max_attempts, 5),
      coalesce(t.on_lost, 'requeue')
    from (
      select distinct l.topic_id, l.topic from pullgate.lane l
        where l.topic_id between coalesce(p_topic, '-9223372036854775808') and coalesce(p_topic, '9223372036854775807')
    ) l
    full join (
      select * from pullgate.topic t
        where t.id between coalesce(p_topic, '-9223372036854775808') and coalesce(p_topic, '9223372036854775807')
    ) t on t.id = l.topic_id
    order by 2
$$;

create or replace view pullgate.topics as
  select t.name as topic, t.paused, t.max_attempts, t.on_lost,
      coalesce(sum(c.jobs) filter (where c.state = 'scheduled'), 0)::bigint as scheduled,
      coalesce(sum(c.jobs) filter (where c.state = 'ready'), 0)::bigint as ready,
      coalesce(sum(c.jobs) filter (where c.state = 'offered'), 0)::bigint as offered,
      coalesce(sum(c.jobs) filter (where c.state = 'running'), 0)::bigint as running,
      coalesce(sum(c.jobs) filter (where c.state = 'delivered'), 0)::bigint as delivered,
      coalesce(sum(c.jobs) filter (where c.state = 'orphaned'), 0)::bigint as orphaned,
      min(c.oldest_due_at) as oldest_ready_at
    from pullgate.read_topics() t
    left join pullgate.count_jobs() c on c.topic_id = t.id
    group by t.name, t.paused, t.max_attempts, t.on_lost;

-- Counts all live jobs and keeps the result, unless another gateway did so in the last p_seconds or is at it.
-- Returns the kept counts: [{topic, state, jobs, oldestSeconds}], how old they are, and how long counting took.
create or replace function pullgate.snapshot_jobs(
  p_seconds double precision,
  out counts jsonb,
  out taken_at timestamptz,
  out age_seconds double precision,
  out duration_seconds double precision
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start timestamptz := clock_timestamp();
begin
  if not exists (select from pullgate.snapshot s where s.taken_at > v_start - make_interval(secs => p_seconds))
    and pg_try_advisory_xact_lock(hashtext('pullgate.snapshot'))
  then
    counts := coalesce((
      select jsonb_agg(jsonb_build_object(
          'topic', t.name, 'state', c.state, 'jobs', c.jobs,
          'oldestSeconds', extract(epoch from v_start - c.oldest_due_at)) order by t.name, c.state)
        from pullgate.read_topics() t
        join pullgate.count_jobs() c on c.topic_id = t.id), '[]');
    insert into pullgate.snapshot as s (taken_at, duration_seconds, counts)
      values (v_start, extract(epoch from clock_timestamp() - v_start), snapshot_jobs.counts)
      on conflict (only_row) do update set
        taken_at = excluded.taken_at, duration_seconds = excluded.duration_seconds, counts = excluded.counts;
  end if;
  select s.counts, s.taken_at, extract(epoch from clock_timestamp() - s.taken_at), s.duration_seconds
    into counts, taken_at, age_seconds, duration_seconds
    from pullgate.snapshot s;
end
$$;

-- One job for GET /jobs/{id}; no row if it is unknown. Hot row and history are read under one snapshot, so a job on
-- its way between them is seen once. result and progress are JSON texts; the log comes without leases.
create or replace function pullgate.read_job(p_id bigint)
returns table (
  id bigint,
  topic text,
  state text,
  priority integer,
  attempts integer,
  max_attempts integer,
  deliveries integer,
  on_lost text,
  dedupe_key text,
  subscription_id uuid,
  created_at timestamptz,
  due_at timestamptz,
  claimed_at timestamptz,
  finished_at timestamptz,
  lease_ends_at timestamptz,
  expires_at timestamptz,
  cancel_reason text,
  last_error text,
  progress text,
  result text,
  log jsonb,
  pending text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.id, (select l.topic from pullgate.lane l where l.topic_id = r.topic_id limit 1), r.state, r.priority,
      r.attempts, r.max_attempts, r.deliveries, r.on_lost, r.dedupe_key, r.subscription_id, r.created_at, r.due_at,
      r.claimed_at, r.finished_at, r.lease_ends_at, r.expires_at, r.cancel_reason, r.last_error, r.progress, r.result,
      (select coalesce(jsonb_agg(e - 'lease'), '[]') from jsonb_array_elements(r.log) as e),
      pullgate.pending(r.state, r.deliveries, (select t.paused from pullgate.topic t where t.id = r.topic_id))
    from (
      select j.id, j.topic_id, j.state, j.priority, j.attempts, j.max_attempts, j.deliveries, j.on_lost, j.dedupe_key,
          j.subscription_id, j.created_at, j.due_at, j.claimed_at, null::timestamptz as finished_at,
          case when j.state in ('offered', 'running') then j.lease_ends_at end as lease_ends_at, j.expires_at, j.cancel_reason, j.last_error, j.progress, null::text as result, j.log
        from pullgate.job j where j.id = p_id
      union all
      select h.id, h.topic_id, h.state, h.priority, h.attempts, h.max_attempts, h.deliveries, h.on_lost, h.dedupe_key,
          h.subscription_id, h.created_at, h.due_at, h.claimed_at, h.finished_at, null, h.expires_at, h.cancel_reason,
          h.last_error, h.progress, h.result, h.log
        from pullgate.history h where h.id = p_id
    ) r
$$;
