-- publish, publish_once, publish_many and complete for values of type json and jsonb. What is kept is the value's text: of
-- json every byte as it came, of jsonb what is left after Postgres has normalised it.
--
-- A parameter without a type has to mean text, so that no byte is lost. With a single value Postgres sees to that: among
-- text, json and jsonb it prefers text. Among text[], json[] and jsonb[] it prefers none, and would call publish_many
-- ambiguous. So the topic decides there: text is preferred to a domain, which takes any text all the same.
do $do$
declare
  v_type text;
begin
  foreach v_type in array array['json', 'jsonb'] loop
    execute format($sql$
      create or replace function pullgate.publish(
        topic text,
        job_spec %1$s,
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
      language sql volatile
      set search_path = pg_catalog, pg_temp
      as $body$
        select pullgate.publish(
          topic, job_spec::text, priority, run_at, delay, dedupe_key, max_attempts, on_lost, expires_at, traceparent)
      $body$;

      create or replace function pullgate.publish_once(
        topic text,
        job_spec %1$s,
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
      language sql volatile
      set search_path = pg_catalog, pg_temp
      as $body$
        select p.id, p.is_new from pullgate.publish_once(
          topic, job_spec::text, priority, run_at, delay, dedupe_key, max_attempts, on_lost, expires_at, traceparent) p
      $body$;

      create or replace function pullgate.publish_many(
        topic pullgate.topic_name,
        job_specs %1$s[],
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
      language sql volatile
      set search_path = pg_catalog, pg_temp
      as $body$
        select pullgate.publish_many(
          topic::text, job_specs::text[], priority, run_at, delay, dedupe_keys, max_attempts, on_lost, expires_at,
          traceparent)
      $body$;

      create or replace function pullgate.complete(job_id bigint, result %1$s)
      returns boolean
      language sql volatile
      set search_path = pg_catalog, pg_temp
      as $body$
        select pullgate.complete(job_id, result::text)
      $body$
    $sql$, v_type);
  end loop;
end
$do$;
