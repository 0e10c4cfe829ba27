-- Wakes: how gateways hear that a topic may have work. Hints only; a claim decides.
--
-- Channel pullgate_wake. Payload: a topic's id, or `due` for a job that falls due within 2 s.

-- The one place that decides whether a wake is sent. `set local pullgate.notify = off` keeps a transaction
-- silent (NOTIFY makes PREPARE TRANSACTION fail); pullgate.wake(topic) or the backstop delivers then.
create or replace function pullgate.notify(p_topics bigint[], p_due boolean)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('pullgate.notify', true) = 'off' then
    return;
  end if;
  perform pg_notify('pullgate_wake', t.id::text) from unnest(p_topics) as t (id);
  if p_due then
    perform pg_notify('pullgate_wake', 'due');
  end if;
end
$$;

-- Wakes the executors that wait for the topic, as a publish does. Raises PL001.
create or replace function pullgate.wake(topic text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pullgate.check_topic_name(topic);
  perform pg_notify('pullgate_wake', pullgate.topic_id(topic)::text);
end
$$;

-- Before any row is inserted: seq is a column default, and it has to be drawn after the transaction's id, so
-- that no job with a lower seq can appear once every transaction up to a given id has ended.
create or replace function pullgate.job_take_xid()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_current_xact_id();
  return null;
end
$$;

create or replace function pullgate.job_inserted()
returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_topics bigint[];
  v_due boolean;
begin
  select array_agg(distinct n.topic_id) filter (where n.state = 'ready'),
      bool_or(n.state = 'scheduled' and n.due_at <= clock_timestamp() + interval '2 seconds')
    into v_topics, v_due
    from new_jobs n;
  perform pullgate.notify(v_topics, coalesce(v_due, false));
  return null;
end
$$;

-- A job becomes ready: a fresh seq, at the end of its lane or, if it comes back, of the lane's returned twin.
create or replace function pullgate.job_becomes_ready()
returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_current_xact_id();
  new.seq := nextval('pullgate.job_seq');
  new.lane_id := case
    when old.state <> 'scheduled' or old.deliveries > 0 then old.lane_id | 1
    else old.lane_id & ~1::bigint
  end;
  if old.state <> 'scheduled' then
    new.due_at := clock_timestamp();
  end if;
  return new;
end
$$;

create or replace function pullgate.job_updated()
returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.state = 'ready' then
    perform pullgate.notify(array[new.topic_id], false);
  elsif new.due_at <= clock_timestamp() + interval '2 seconds' then
    perform pullgate.notify(null, true);
  end if;
  return null;
end
$$;

create or replace trigger job_take_xid before insert on pullgate.job
  for each statement execute function pullgate.job_take_xid();
create or replace trigger job_inserted after insert on pullgate.job
  referencing new table as new_jobs
  for each statement execute function pullgate.job_inserted();
-- Without the conditions every heartbeat would pay for the two triggers below.
create or replace trigger job_becomes_ready before update on pullgate.job
  for each row when (new.state = 'ready' and old.state <> 'ready')
  execute function pullgate.job_becomes_ready();
create or replace trigger job_updated after update on pullgate.job
  for each row when (
    new.state in ('ready', 'scheduled') and (old.state <> new.state or old.due_at <> new.due_at))
  execute function pullgate.job_updated();

-- Also in sessions whose session_replication_role is replica.
alter table pullgate.job enable always trigger job_take_xid;
alter table pullgate.job enable always trigger job_inserted;
alter table pullgate.job enable always trigger job_becomes_ready;
alter table pullgate.job enable always trigger job_updated;
