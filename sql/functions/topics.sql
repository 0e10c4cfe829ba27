-- Topics and lanes: names to ids, settings, registration on first use.

-- Bodies like the three below have their names bound when they are created; a setting would keep Postgres from taking
-- them into the statements that call them (5 us a call).

-- 64 bits of SHA-256: the same on every platform and version, so ids survive dump and restore.
create or replace function pullgate.digest(p_text text)
returns bigint
language sql immutable strict parallel safe
return ('x' || encode(substr(sha256(convert_to(p_text, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint;

create or replace function pullgate.topic_id(p_topic text)
returns bigint
language sql immutable strict parallel safe
return pullgate.digest(p_topic);

-- The day's slot in the history ring.
create or replace function pullgate.day_slot(p_at timestamptz)
returns smallint
language sql immutable strict parallel safe
return (floor(extract(epoch from p_at) / 86400)::bigint % 32)::smallint;

-- Raises PL001 unless the name is a topic name.
create or replace function pullgate.check_topic_name(p_topic text)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_topic is null or p_topic !~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$' then
    raise exception 'bad topic name'
      using errcode = 'PL001', column = 'topic',
        hint = 'A topic name is 1 to 200 characters of A-Z a-z 0-9 . _ : - and begins with a letter or digit.';
  end if;
end
$$;

-- Raises PL002 for a topic that does not exist where creation by use is switched off; else says NOTICE.
create or replace function pullgate.announce_topic(p_topic text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from pullgate.topic t where t.id = pullgate.topic_id(p_topic))
    or exists (select from pullgate.lane l where l.topic = p_topic)
  then
    return;
  end if;
  if not (select s.create_topics from pullgate.setting s) then
    raise exception 'topic % does not exist', p_topic
      using errcode = 'PL002', column = 'topic',
        hint = 'Create it with pullgate.configure_topic(name), or allow creation by use: pullgate.configure(create_topics => true).';
  end if;
  raise notice 'topic % is new', p_topic;
end
$$;

-- What publish needs to know of a topic and priority. Registers the lane if no registration is visible.
-- Locks nothing that anyone waits for.
create or replace function pullgate.use_lane(
  p_topic text,
  p_priority integer,
  out lane_id bigint,
  out topic_id bigint,
  out max_attempts smallint,
  out on_lost text,
  out job_spec_max_bytes integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  select l.id, l.topic_id, t.max_attempts, t.on_lost, s.job_spec_max_bytes
    into lane_id, topic_id, max_attempts, on_lost, job_spec_max_bytes
    from pullgate.setting s
    left join pullgate.lane l on l.topic = p_topic and l.priority = p_priority
    left join pullgate.topic t on t.id = any (array[l.topic_id])
    limit 1;
  if lane_id is null then
    perform pullgate.check_topic_name(p_topic);
    if p_priority is null or p_priority not between -10 and 10 then
      raise exception 'bad priority'
        using errcode = 'PL005', column = 'priority', hint = 'priority is a whole number from -10 to 10; higher is served first.';
    end if;
    perform pullgate.announce_topic(p_topic);
    topic_id := pullgate.topic_id(p_topic);
    lane_id := pullgate.digest(p_topic || '/' || p_priority) & ~1::bigint;
    insert into pullgate.lane (id, topic_id, topic, priority)
      values (lane_id, use_lane.topic_id, p_topic, p_priority);
    select t.max_attempts, t.on_lost into max_attempts, on_lost
      from pullgate.topic t where t.id = use_lane.topic_id;
  end if;
  max_attempts := coalesce(max_attempts, 5);
  on_lost := coalesce(on_lost, 'requeue');
end
$$;

-- Creates a topic or changes its settings; null leaves one as it is. Returns the effective settings.
-- max_attempts and on_lost are defaults for jobs published from now on. Raises PL001, PL005.
create or replace function pullgate.configure_topic(
  topic text,
  paused boolean default null,
  max_attempts integer default null,
  on_lost text default null
)
returns table (name text, is_paused boolean, default_max_attempts integer, default_on_lost text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pullgate.check_topic_name(topic);
  perform pullgate.check_options(max_attempts, on_lost);
  insert into pullgate.topic as t (id, name, paused, max_attempts, on_lost)
    values (
      pullgate.topic_id(topic), topic,
      coalesce(paused, false), coalesce(max_attempts, 5), coalesce(on_lost, 'requeue'))
    on conflict (id) do update set
      paused = coalesce(configure_topic.paused, t.paused),
      max_attempts = coalesce(configure_topic.max_attempts, t.max_attempts),
      on_lost = coalesce(configure_topic.on_lost, t.on_lost);
  if paused is false then
    perform pullgate.wake(topic);
  end if;
  return query
    select t.name, t.paused, t.max_attempts::integer, t.on_lost
      from pullgate.topic t where t.id = pullgate.topic_id(topic);
end
$$;

-- Raises PL005 for a setting out of range; null is in range.
create or replace function pullgate.check_setting(p_setting text, p_value integer, p_min integer, p_max integer)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value not between p_min and p_max then
    raise exception 'bad %', p_setting
      using errcode = 'PL005', column = p_setting,
        hint = format('%s is a whole number from %s to %s.', p_setting, p_min, p_max);
  end if;
end
$$;

-- Changes settings of the whole installation; null leaves one as it is. Raises PL005.
create or replace function pullgate.configure(
  create_topics boolean default null,
  job_spec_max_bytes integer default null,
  history_days integer default null,
  subscription_idle_days integer default null
)
returns setof pullgate.setting
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pullgate.check_setting('job_spec_max_bytes', job_spec_max_bytes, 1024, 104857600);
  perform pullgate.check_setting('history_days', history_days, 1, 30);
  perform pullgate.check_setting('subscription_idle_days', subscription_idle_days, 1, 3650);
  return query
    update pullgate.setting s set
      create_topics = coalesce(configure.create_topics, s.create_topics),
      job_spec_max_bytes = coalesce(configure.job_spec_max_bytes, s.job_spec_max_bytes),
      history_days = coalesce(configure.history_days, s.history_days),
      subscription_idle_days = coalesce(configure.subscription_idle_days, s.subscription_idle_days)
      returning s.*;
end
$$;
