-- Publishing over HTTP with an Idempotency-Key: the same request again gets the id that it got.
--
-- A row of pullgate.publish_key is inserted before the job and in its transaction, so of several requests with one key
-- the others wait for the first: they find its row when it has committed, and are the first themselves when it was undone.
-- Nothing else locks these rows but forget_publish_keys, which skips what is locked.

-- Publishes as publish_once does, unless p_key (a digest of topic and key) is known: then the id that was returned for it,
-- and `is_new` is false. p_request is a digest of the request's body; another one than the key is known for raises PL010.
create or replace function pullgate.publish_keyed(
  p_key uuid,
  p_request uuid,
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
declare
  v_known pullgate.publish_key;
begin
  loop
    insert into pullgate.publish_key (key, request) values (p_key, p_request) on conflict (key) do nothing;
    if found then
      select p.id, p.is_new into publish_keyed.id, publish_keyed.is_new from pullgate.publish_once(
        topic, job_spec, priority, run_at, delay, dedupe_key, max_attempts, on_lost, expires_at, traceparent) p;
      update pullgate.publish_key k set job_id = publish_keyed.id where k.key = p_key;
      return;
    end if;
    -- A new snapshot: the row that was waited for. None, if it has been forgotten since.
    select k.* into v_known from pullgate.publish_key k where k.key = p_key;
    exit when found;
  end loop;
  if v_known.request <> p_request then
    raise exception 'the key was used for another request'
      using errcode = 'PL010', column = 'Idempotency-Key', hint = 'Take a new key for each new request.';
  end if;
  id := v_known.job_id;
  is_new := false;
end
$$;

-- Forgets keys of more than 24 hours ago, the oldest first, at most p_limit; returns their number. For gateways, in the
-- background, until it returns less than p_limit.
create or replace function pullgate.forget_publish_keys(p_limit integer)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of a variable the index makes a bound.
  v_before timestamptz := clock_timestamp() - interval '24 hours';
  v_count integer;
begin
  delete from pullgate.publish_key k
    where k.key = any (array(
      select o.key from pullgate.publish_key o
        where o.created_at < v_before
        order by o.created_at
        limit p_limit
        for update skip locked));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
