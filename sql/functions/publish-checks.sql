-- What a publish is checked for. Nothing of a job spec becomes part of a message.

-- Whether the text is one JSON value; null for null. The value is kept as it came, so nothing but syntax counts:
-- duplicate keys, any number of digits and \u0000 are fine.
do $do$
begin
  if current_setting('server_version_num')::integer >= 160000 then
    -- Postgres takes such a body into the statement that calls it: 2 us of a publish, against 9 for a call.
    execute $sql$
      create or replace function pullgate.is_json(p_text text)
      returns boolean
      language sql immutable parallel safe
      return p_text is json
    $sql$;
  else
    execute $sql$
      create or replace function pullgate.is_json(p_text text)
      returns boolean
      language plpgsql immutable strict
      set search_path = pg_catalog, pg_temp
      as $body$
      begin
        perform p_text::json;
        return true;
      exception
        when invalid_text_representation then
          return false;
      end
      $body$
    $sql$;
  end if;
end
$do$;

-- When a job that is published at p_now is due. Raises PL005.
create or replace function pullgate.due_instant(p_run_at timestamptz, p_delay interval, p_now timestamptz)
returns timestamptz
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_run_at is not null and p_delay is not null then
    raise exception 'run_at and delay exclude each other'
      using errcode = 'PL005', hint = 'Give one of run_at and delay.';
  end if;
  return greatest(coalesce(p_run_at, p_now + p_delay, p_now), p_now);
end
$$;

-- Raises PL005 for an option out of range; null means the default.
create or replace function pullgate.check_options(p_max_attempts integer, p_on_lost text)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_max_attempts not between 1 and 100 then
    raise exception 'bad max_attempts'
      using errcode = 'PL005', hint = 'max_attempts is a whole number from 1 to 100.';
  end if;
  if p_on_lost not in ('requeue', 'orphan', 'fail') then
    raise exception 'bad on_lost'
      using errcode = 'PL005', hint = 'on_lost is requeue, orphan or fail.';
  end if;
end
$$;

create or replace function pullgate.check_text_options(p_dedupe_key text, p_traceparent text)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if length(p_dedupe_key) not between 1 and 500 then
    raise exception 'bad dedupe_key'
      using errcode = 'PL005', hint = 'dedupe_key is 1 to 500 characters.';
  end if;
  if length(p_traceparent) > 200 then
    raise exception 'bad traceparent'
      using errcode = 'PL005', hint = 'traceparent is at most 200 characters.';
  end if;
end
$$;

-- Raises PL003 or PL004 unless the text is a job spec. Its text never becomes part of a message.
create or replace function pullgate.check_job_spec(p_job_spec text, p_max_bytes integer)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if octet_length(p_job_spec) > p_max_bytes then
    raise exception 'job spec too large: % bytes, the limit is %', octet_length(p_job_spec), p_max_bytes
      using errcode = 'PL004',
        hint = 'Publish a reference to the data, or raise the limit: pullgate.configure(job_spec_max_bytes => ...).';
  end if;
  if p_job_spec is null or not pullgate.is_json(p_job_spec) then
    raise exception 'the job spec is not JSON'
      using errcode = 'PL003', hint = 'Pass one JSON value as text or jsonb.';
  end if;
end
$$;
