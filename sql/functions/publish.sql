-- Publishing. Runs in the publisher's transaction, which may stay open for minutes: nothing here locks a row
-- that another publisher, a claim or a settle needs, the same dedupe key apart.

-- Publishes one job; returns its id. Executors see it once the transaction commits.
--   job_spec     one JSON value, kept byte for byte
--   priority     -10 to 10, higher first; null is 0
--   run_at/delay not before this instant / this long from now (both: PL005); before the year 10000
--   dedupe_key   while a job of the topic with this key is unfinished, its id is returned and nothing is added;
--                a concurrent publisher of the key is waited for. Under REPEATABLE READ and SERIALIZABLE that
--                can end in 40001: repeat the transaction.
--   max_attempts 1 to 100; on_lost requeue, orphan or fail; defaults are the topic's
--   expires_at   not started by then: state expired; one in the past counts as now; before the year 10000
--   traceparent  W3C trace context, handed to the executor
-- Raises PL001 topic name, PL002 unknown topic, PL003 not JSON, PL004 too large, PL005 option.
create or replace function pullgate.publish(
  topic text,
  job_spec text,
  priority integer default 0,
  run_at timestamptz default null,
  delay interval default null,
  dedupe_key text default null,
  max_attempts integer default null,
  on_lost text default null,
  expires_at timestamptz default null,
  traceparent text default null
)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
-- In the target of ON CONFLICT a name is a column's.
#variable_conflict use_column
declare
  -- The clock is read after the transaction has its id: a job that an id above a given one brings is due after the
  -- instant at which that id was drawn.
  v_now timestamptz := case when pg_current_xact_id() is not null then clock_timestamp() end;
  v_due timestamptz := v_now;
  v_id bigint;
  v_topic bigint;
  v_heard boolean;
begin
  if num_nonnulls(run_at, delay, dedupe_key, max_attempts, on_lost, expires_at, traceparent) > 0 then
    v_due := pullgate.due_instant(run_at, delay, v_now);
    perform pullgate.check_options(max_attempts, on_lost);
    perform pullgate.check_text_options(dedupe_key, traceparent);
    if expires_at is not null then
      perform pullgate.check_instant('expires_at', expires_at);
    end if;
  end if;
  loop
    -- All that the usual publish needs in one statement: each further one costs 10 to 20 us, the plain insert 70.
    insert into pullgate.job as j (
        lane_id, topic_id, priority, announced, state, due_at, created_at, dedupe_key,
        max_attempts, on_lost, expires_at, traceparent, job_spec)
      select l.id, l.topic_id, l.priority, true,
          case when v_due > v_now then 'scheduled' else 'ready' end, v_due, v_now, publish.dedupe_key,
          coalesce(publish.max_attempts, t.max_attempts, 5), coalesce(publish.on_lost, t.on_lost, 'requeue'),
          case when publish.expires_at is not null then greatest(publish.expires_at, v_now) end,
          publish.traceparent, publish.job_spec
        from pullgate.lane l
        left join pullgate.topic t on t.id = any (array[l.topic_id])
        where l.topic = publish.topic and l.priority = publish.priority
          -- Not a join: before anything is analysed that counts as hundreds of rows, of which the limit takes one, and
          -- all lanes are scanned.
          and octet_length(publish.job_spec) <= (select s.job_spec_max_bytes from pullgate.setting s)
          and pullgate.is_json(publish.job_spec)
        -- Several publishers may have registered the lane at the same time.
        limit 1
      -- The dedupe key alone: an id that is taken (mend_sequences) is an error, not a hit.
      on conflict (topic_id, dedupe_key) where dedupe_key is not null do nothing
      -- Whether a wake has to be sent at all, by the rule of pullgate.notify: a call of that takes 20 us, this 5.
      returning j.id, j.topic_id,
        current_setting('transaction_isolation') <> 'read committed'
          or exists (select from pullgate.armed a where a.topic_id = j.topic_id offset 0)
        into v_id, v_topic, v_heard;
    if v_id is not null then
      if v_heard then
        perform pullgate.notify(v_topic, v_due, v_now);
      end if;
      return v_id;
    end if;
    -- The lane is not registered, the spec is refused, or another job has the key; of priority null there is no lane.
    priority := coalesce(priority, 0);
    perform pullgate.check_job_spec(job_spec, (pullgate.use_lane(topic, priority)).job_spec_max_bytes);
    continue when dedupe_key is null;
    -- A new snapshot: the job that holds the key may have committed, or finished, since the insert looked.
    select j.id into v_id from pullgate.job j
      where j.topic_id = pullgate.topic_id(publish.topic) and j.dedupe_key = publish.dedupe_key;
    if v_id is not null then
      return v_id;
    end if;
  end loop;
end
$$;

-- Publishes as publish does, and says whether that added a job: `is_new` is false where another job holds the dedupe key,
-- whose id is returned then.
create or replace function pullgate.publish_once(
  topic text,
  job_spec text,
  priority integer default 0,
  run_at timestamptz default null,
  delay interval default null,
  dedupe_key text default null,
  max_attempts integer default null,
  on_lost text default null,
  expires_at timestamptz default null,
  traceparent text default null,
  out id bigint,
  out is_new boolean
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A number that no job gets. So the last that this session has drawn is the id of the job only if publish added it:
  -- publish itself, which is called far more often, need not tell.
  perform nextval('pullgate.job_id_seq');
  id := pullgate.publish(
    topic, job_spec, priority, run_at, delay, dedupe_key, max_attempts, on_lost, expires_at, traceparent);
  is_new := id = currval('pullgate.job_id_seq');
end
$$;

-- Publishes many jobs with one statement; returns their ids in the order of job_specs. The options count for
-- all of them; dedupe_keys, if given, has one key (or null) per spec. Raises as publish does, and adds none then. Bounds
-- and dimensions of the arrays mean nothing: their elements count, in the order in which they are stored.
create or replace function pullgate.publish_many(
  topic text,
  job_specs text[],
  priority integer default 0,
  run_at timestamptz default null,
  delay interval default null,
  dedupe_keys text[] default null,
  max_attempts integer default null,
  on_lost text default null,
  expires_at timestamptz default null,
  traceparent text default null
)
returns setof bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lane record;
  -- As in publish.
  v_now timestamptz := case when pg_current_xact_id() is not null then clock_timestamp() end;
  v_due timestamptz := pullgate.due_instant(run_at, delay, v_now);
  v_refused text;
  v_ids bigint[];
  v record;
begin
  if job_specs is null then
    perform pullgate.check_job_spec(null, null);
  end if;
  priority := coalesce(priority, 0);
  if dedupe_keys is not null then
    if cardinality(dedupe_keys) <> cardinality(job_specs) then
      raise exception 'dedupe_keys has % elements, job_specs %', cardinality(dedupe_keys), cardinality(job_specs)
        using errcode = 'PL005', column = 'dedupe_keys', hint = 'Give one dedupe key, or null, per job spec.';
    end if;
    -- In the order of the keys, so that two publishers of the same keys cannot wait for each other.
    for v in
      select g.spec, g.key, g.position
        from unnest(job_specs, dedupe_keys) with ordinality as g (spec, key, position)
        order by g.key, g.position
    loop
      v_ids[v.position] := pullgate.publish(
        topic, v.spec, priority, v_due, null, v.key, max_attempts, on_lost, expires_at, traceparent);
    end loop;
    return query select i.id from unnest(v_ids) with ordinality as i (id, position) order by i.position;
    return;
  end if;
  v_lane := pullgate.use_lane(topic, priority);
  perform pullgate.check_options(max_attempts, on_lost);
  perform pullgate.check_text_options(null, traceparent);
  perform pullgate.check_instant('expires_at', expires_at);
  select s.spec into v_refused from unnest(job_specs) as s (spec)
    where (octet_length(s.spec) <= v_lane.job_spec_max_bytes and pullgate.is_json(s.spec)) is not true
    limit 1;
  if found then
    perform pullgate.check_job_spec(v_refused, v_lane.job_spec_max_bytes);
  end if;
  return query
    insert into pullgate.job as j (
        lane_id, topic_id, priority, announced, state, due_at, created_at,
        max_attempts, on_lost, expires_at, traceparent, job_spec)
      select v_lane.lane_id, v_lane.topic_id, priority, true,
        case when v_due > v_now then 'scheduled' else 'ready' end, v_due, v_now,
        coalesce(publish_many.max_attempts, v_lane.max_attempts), coalesce(publish_many.on_lost, v_lane.on_lost),
        case when publish_many.expires_at is not null then greatest(publish_many.expires_at, v_now) end,
        publish_many.traceparent, s.spec
      from unnest(job_specs) with ordinality as s (spec, position)
      order by s.position
      returning j.id;
  if found then
    perform pullgate.notify(v_lane.topic_id, v_due, v_now);
  end if;
end
$$;

-- The target for plain INSERT and COPY: each row is one call of publish. Reads as empty.
create or replace view pullgate.inbox as
  select null::bigint as id, null::text as topic, null::text as job_spec, null::integer as priority,
    null::timestamptz as run_at, null::interval as delay, null::text as dedupe_key,
    null::integer as max_attempts, null::text as on_lost, null::timestamptz as expires_at,
    null::text as traceparent
  where false;

create or replace function pullgate.inbox_insert()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  new.id := pullgate.publish(
    new.topic, new.job_spec, new.priority, new.run_at, new.delay, new.dedupe_key,
    new.max_attempts, new.on_lost, new.expires_at, new.traceparent);
  return new;
end
$$;

create or replace trigger inbox_insert instead of insert on pullgate.inbox
  for each row execute function pullgate.inbox_insert();
