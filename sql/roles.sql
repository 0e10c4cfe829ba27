-- Roles, a step of their own: roles belong to the whole cluster and need CREATEROLE; migrations do not.
-- Can be run again, and has to be after a migration that adds functions. The objects go to pullgate_owner, as whom
-- the security definer functions then run. Who runs this becomes a member of pullgate_owner, unless a superuser.
--
--   pullgate_owner      owns the schema, no login
--   pullgate_publisher  publish only
--   pullgate_gateway    claim, settle, read, publish over HTTP, outcomes by job id
--   pullgate_monitor    read the views for people

do $$
begin
  for v_role in 1..4 loop
    begin
      execute format('create role %I nologin', (array[
        'pullgate_owner', 'pullgate_publisher', 'pullgate_gateway', 'pullgate_monitor'])[v_role]);
    exception
      -- Another database's roles step may be creating it at this moment.
      when duplicate_object or unique_violation then null;
    end;
  end loop;
end
$$;

do $$
declare
  v_object text;
begin
  -- Ownership goes only to a role that one is a member of, and a migrator that is no superuser has to stay one.
  if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
    grant pullgate_owner to current_user;
  end if;
  alter schema pullgate owner to pullgate_owner;
  -- Only what is not its own yet: the change takes a table's strongest lock.
  for v_object in
    select format('alter table pullgate.%I owner to pullgate_owner', c.relname)
      from pg_class c where c.relnamespace = 'pullgate'::regnamespace and c.relkind in ('r', 'p', 'v')
        and c.relowner <> 'pullgate_owner'::regrole
    union all
    select format('alter sequence %s owner to pullgate_owner', c.oid::regclass)
      from pg_class c where c.relnamespace = 'pullgate'::regnamespace and c.relkind = 'S'
        and c.relowner <> 'pullgate_owner'::regrole
        -- An identity column's sequence follows its table.
        and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'i')
    union all
    select format('alter domain pullgate.%I owner to pullgate_owner', t.typname)
      from pg_type t where t.typnamespace = 'pullgate'::regnamespace and t.typtype = 'd'
        and t.typowner <> 'pullgate_owner'::regrole
    union all
    select format('alter function %s owner to pullgate_owner', p.oid::regprocedure)
      from pg_proc p
      where p.pronamespace = 'pullgate'::regnamespace and p.proowner <> 'pullgate_owner'::regrole
  loop
    execute v_object;
  end loop;
end
$$;

revoke all on schema pullgate from public;
revoke all on all tables in schema pullgate from public;
revoke all on all functions in schema pullgate from public;

-- What an earlier version granted and this one does not.
revoke all on all functions in schema pullgate from pullgate_publisher, pullgate_gateway, pullgate_monitor;

grant usage on schema pullgate to pullgate_publisher, pullgate_gateway, pullgate_monitor;

grant execute on function
  pullgate.publish(text, text, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.publish(text, json, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.publish(text, jsonb, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.publish_once(text, text, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.publish_once(text, json, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.publish_once(text, jsonb, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.publish_many(text, text[], integer, timestamptz, interval, text[], integer, text, timestamptz, text),
  pullgate.publish_many(
    pullgate.topic_name, json[], integer, timestamptz, interval, text[], integer, text, timestamptz, text),
  pullgate.publish_many(
    pullgate.topic_name, jsonb[], integer, timestamptz, interval, text[], integer, text, timestamptz, text)
  to pullgate_publisher, pullgate_gateway;
-- Select for RETURNING id; the view reads as empty.
grant insert, select on pullgate.inbox to pullgate_publisher;

grant execute on function
  pullgate.publish_keyed(
    uuid, uuid, text, text, integer, timestamptz, interval, text, integer, text, timestamptz, text),
  pullgate.forget_publish_keys(integer),
  pullgate.claim(bigint[], uuid[], integer[], bigint[], bigint[], integer, bigint, uuid[]),
  pullgate.give_again(uuid[], integer[]),
  pullgate.give_back(bigint[], uuid[]),
  pullgate.confirm(bigint[], uuid[]),
  pullgate.doubt(bigint[], uuid[]),
  pullgate.run_due(integer, timestamptz),
  pullgate.look(bigint[], bigint[], bigint[], timestamptz, integer, boolean, boolean),
  pullgate.claim_due(integer, timestamptz, bigint[], uuid[], integer[], bigint[], bigint[], integer, bigint, uuid[]),
  pullgate.arm(uuid, bigint[]),
  pullgate.disarm(uuid, bigint[]),
  pullgate.join_gateway(),
  pullgate.bury(integer[]),
  pullgate.retire(integer[], integer, bigint[], uuid[]),
  pullgate.refresh_claims(bigint[], uuid[]),
  pullgate.give_back_unheard(bigint[], uuid[], double precision),
  pullgate.advance_marks(bigint[], bigint[], bigint[], timestamptz, bigint, xid8, timestamptz, xid8[]),
  pullgate.reseat(bigint[], bigint[], bigint, integer),
  pullgate.upkeep(),
  pullgate.set_aside_unclaimable(bigint[], bigint[], bigint[], integer),
  pullgate.set_aside_held(bigint, uuid, text, text),
  pullgate.mend_sequences(),
  pullgate.settle_completes(bigint[], uuid[], text[]),
  pullgate.settle_fails(bigint[], uuid[], text[], boolean[], double precision[]),
  pullgate.settle_releases(bigint[], uuid[], double precision[]),
  pullgate.heartbeats(bigint[], uuid[], integer[], text[]),
  pullgate.read_leases(bigint[], uuid[]),
  pullgate.subscribe(text[], text, text, integer, integer, integer),
  pullgate.unsubscribe(uuid, boolean),
  pullgate.read_subscriptions(uuid),
  pullgate.touch_subscriptions(uuid[]),
  pullgate.read_job(bigint),
  pullgate.read_topics(bigint),
  pullgate.count_jobs(bigint),
  pullgate.snapshot_jobs(double precision),
  pullgate.topic_id(text),
  pullgate.digest(text),
  pullgate.complete(bigint, text),
  pullgate.complete(bigint, json),
  pullgate.complete(bigint, jsonb),
  pullgate.fail(bigint, text),
  pullgate.cancel(bigint, text),
  pullgate.retry(bigint),
  pullgate.wake(text)
  to pullgate_gateway;
grant select on pullgate.migration, pullgate.function_file to pullgate_gateway, pullgate_monitor;

grant select on pullgate.jobs, pullgate.topics to pullgate_gateway, pullgate_monitor;
-- Whoever reads a view has to be allowed the functions in it.
grant execute on function
  pullgate.read_topics(bigint), pullgate.count_jobs(bigint), pullgate.pending(text, smallint, boolean)
  to pullgate_gateway, pullgate_monitor;
grant execute on function pullgate.doctor() to pullgate_gateway, pullgate_monitor;
