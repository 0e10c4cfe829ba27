-- Wakes: how gateways hear that a topic may have work. Hints only; a claim decides.
--
-- Channel pullgate_wake. Payload: a topic's id, or `due:` and a topic's id for a job that falls due within 2 s; besides
-- `ended:` and a subscription's id, `cancel:` and the id of a running job that was cancelled,
-- or has ended by id.
--
-- A commit that carries NOTIFY takes one lock of the whole cluster through its flush: 32 publishers fell from 23,500 to
-- 5,000 inserts/s. So publishers notify only for topics that are armed (pullgate.armed), that is, where somebody waits.
--
-- No wake is lost by that. A publisher reads the registry after it has a transaction id. Once an arm has committed, a
-- fresh id F is higher than that of every publisher that could have missed the arm; when all below F have ended and no
-- ready job is visible (pullgate.look), there is nothing that was published in silence, and notifications suffice.

-- The one place that decides whether a wake is sent. `set local pullgate.notify = off` keeps a transaction
-- silent (NOTIFY makes PREPARE TRANSACTION fail); pullgate.wake(topic) or the backstop delivers then.
-- Under REPEATABLE READ and SERIALIZABLE the registry is seen as it was when the transaction began: notified always.
--   p_due_at   from when on the job can be claimed; nothing is sent if that is more than 2 s after p_now
create or replace function pullgate.notify(p_topic bigint, p_due_at timestamptz, p_now timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_due_at > p_now + interval '2 seconds' or current_setting('pullgate.notify', true) = 'off' then
    return;
  end if;
  if current_setting('transaction_isolation') <> 'read committed'
    or exists (select from pullgate.armed a where a.topic_id = p_topic and a.until > clock_timestamp())
  then
    perform pg_notify('pullgate_wake', case when p_due_at > p_now then 'due:' else '' end || p_topic);
  end if;
end
$$;

-- Arms topics for a gateway, for 30 s from now. Returns those that publishers may have taken for unarmed before: they
-- need a fence of their own. Locks: the gateway's own rows, in the order of their ids.
create or replace function pullgate.arm(p_gateway uuid, p_topics bigint[])
returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_renewed bigint[];
begin
  with renewed as (
    update pullgate.armed a set until = v_now + interval '30 seconds'
      where a.gateway_id = p_gateway and a.topic_id = any (p_topics)
        -- One that ends at this moment might end for a publisher before this commits.
        and a.until > v_now + interval '5 seconds'
      returning a.topic_id
  )
  select array_agg(r.topic_id) into v_renewed from renewed r;
  insert into pullgate.armed as a (topic_id, gateway_id, until)
    select distinct t.id, p_gateway, v_now + interval '30 seconds'
      from unnest(p_topics) as t (id)
      where v_renewed is null or not t.id = any (v_renewed)
      order by t.id
    on conflict (topic_id, gateway_id) do update set until = excluded.until;
  return array(select t.id from unnest(p_topics) as t (id) where v_renewed is null or not t.id = any (v_renewed));
end
$$;

create or replace function pullgate.disarm(p_gateway uuid, p_topics bigint[])
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  delete from pullgate.armed a where a.gateway_id = p_gateway and a.topic_id = any (p_topics)
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

create or replace function pullgate.job_wakes()
returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  perform pullgate.notify(new.topic_id, case new.state when 'ready' then v_now else new.due_at end, v_now);
  return null;
end
$$;

-- publish sends its wake itself: a statement trigger took 30 us of its 165 though it stayed silent, this condition 8.
create or replace trigger job_inserted after insert on pullgate.job
  for each row when (not new.announced)
  execute function pullgate.job_wakes();
-- Without the conditions every heartbeat would pay for the two triggers below.
create or replace trigger job_becomes_ready before update on pullgate.job
  for each row when (new.state = 'ready' and old.state <> 'ready')
  execute function pullgate.job_becomes_ready();
create or replace trigger job_updated after update on pullgate.job
  for each row when (
    new.state in ('ready', 'scheduled') and (old.state <> new.state or old.due_at <> new.due_at))
  execute function pullgate.job_wakes();

-- Also in sessions whose session_replication_role is replica.
alter table pullgate.job enable always trigger job_inserted;
alter table pullgate.job enable always trigger job_becomes_ready;
alter table pullgate.job enable always trigger job_updated;
