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

-- Every PLxxx error about an argument has the argument's name as its column: the gateway names the field by it.

-- Raises PL005 for an instant that RFC 3339, and so an answer, cannot say: infinity, and year 10000 and later.
create or replace function pullgate.check_instant(p_option text, p_at timestamptz)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- 10000-01-01 00:00 UTC, as no setting of the session can change it.
  if p_at >= to_timestamp(253402300800) then
    raise exception '% reaches beyond the year 9999', p_option
      using errcode = 'PL005', column = p_option,
        hint = format('Stay before the year 10000 (UTC), or leave %s out.', p_option);
  end if;
end
$$;

-- When a job that is published at p_now is due; the past counts as now. Raises PL005.
create or replace function pullgate.due_instant(p_run_at timestamptz, p_delay interval, p_now timestamptz)
returns timestamptz
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_delayed timestamptz;
begin
  if p_run_at is not null and p_delay is not null then
    raise exception 'run_at and delay exclude each other'
      using errcode = 'PL005', column = 'delay', hint = 'Give one of run_at and delay.';
  end if;
  if p_run_at is not null then
    perform pullgate.check_instant('run_at', p_run_at);
  elsif p_delay is not null then
    -- Within bounds first: the sum could leave the calendar.
    v_delayed := p_now + least(greatest(p_delay, interval '-1000 years'), interval '10000 years');
    perform pullgate.check_instant('delay', v_delayed);
  end if;
  return greatest(coalesce(p_run_at, v_delayed, p_now), p_now);
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
      using errcode = 'PL005', column = 'max_attempts', hint = 'max_attempts is a whole number from 1 to 100.';
  end if;
  if p_on_lost not in ('requeue', 'orphan', 'fail') then
    raise exception 'bad on_lost'
      using errcode = 'PL005', column = 'on_lost', hint = 'on_lost is requeue, orphan or fail.';
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
      using errcode = 'PL005', column = 'dedupe_key', hint = 'dedupe_key is 1 to 500 characters.';
  end if;
  if length(p_traceparent) > 200 then
    raise exception 'bad traceparent'
      using errcode = 'PL005', column = 'traceparent', hint = 'traceparent is at most 200 characters.';
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
      using errcode = 'PL004', column = 'job_spec',
        hint = 'Publish a reference to the data, or raise the limit: pullgate.configure(job_spec_max_bytes => ...).';
  end if;
  if p_job_spec is null or not pullgate.is_json(p_job_spec) then
    raise exception 'the job spec is not JSON'
      using errcode = 'PL003', column = 'job_spec', hint = 'Pass one JSON value as text, json or jsonb.';
  end if;
end
$$;
