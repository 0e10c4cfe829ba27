-- Rows that cannot be processed: their data are corrupted, or moving them breaks a constraint. Such a row would fail its
-- statement at every try, and with it everything else that the statement was for.
--
-- So a function that works on many jobs catches an error that the data of one job can raise, sets that job aside, and
-- goes on with the others. A job that is set aside is `orphaned`: nothing touches it any more until a person decides.
-- pullgate.doctor() lists these jobs. An error of any other kind (locks, time-outs, resources, a missing object) is
-- raised as ever: it is not the job's, and setting jobs aside for it could empty the queue.

-- Whether the data of a row can raise this SQLSTATE: data exceptions, constraints, corrupted data or index.
create or replace function pullgate.is_of_row(p_sqlstate text)
returns boolean
language sql immutable parallel safe
return p_sqlstate ~ '^(22|23|XX00[12])';

-- Sets one live job aside, locked or not: `orphaned`, with the SQLSTATE and the constraint's name in last_error. The
-- server's message is not kept, since it can quote the job spec. The lease is void from then on. Returns `orphaned`, or
-- null where not even that can be written; such a row stays as it is, and is met again.
-- Locks: the job.
create or replace function pullgate.set_aside(p_id bigint, p_sqlstate text, p_constraint text)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job pullgate.job;
begin
  select j.* into v_job from pullgate.job j where j.id = p_id for update;
  if not found then
    return null;
  end if;
  v_job.job_spec := null;
  v_job.last_error := format(
    'set aside: the database refused to process the job (SQLSTATE %s%s)',
    p_sqlstate, coalesce(', ' || nullif(p_constraint, ''), ''));
  update pullgate.job j set
      state = 'orphaned', lease = null, lease_ends_at = null, lease_check_at = null, pull_key = null, expires_at = null,
      last_error = v_job.last_error, log = pullgate.logged(v_job, 'set aside', 'orphaned')
    where j.id = p_id;
  return 'orphaned';
exception
  when others then
    if not pullgate.is_of_row(sqlstate) then
      raise;
    end if;
    return null;
end
$$;

-- Puts locked jobs into a state together: `ready` what was scheduled; `expired`, or `delivered` without a dedupe key, moves
-- to history; `keyed` is `delivered` with one, which it keeps for a day. Where the data of a job refuse, halves the set until
-- that job is found, and sets it aside. Returns how many jobs were changed, set aside included.
create or replace function pullgate.change_all(p_ids bigint[], p_state text)
returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_half integer := cardinality(p_ids) / 2;
  v_sqlstate text;
  v_constraint text;
begin
  if cardinality(p_ids) = 0 then
    return 0;
  end if;
  begin
    case p_state
      when 'ready' then
        update pullgate.job j set state = 'ready' where j.id = any (p_ids);
      when 'keyed' then
        update pullgate.job j set
            state = 'delivered', lease_ends_at = null, lease_check_at = clock_timestamp() + interval '1 day'
          where j.id = any (p_ids);
      else
        perform pullgate.finish_all(p_ids, p_state);
    end case;
    return cardinality(p_ids);
  exception
    when others then
      get stacked diagnostics v_sqlstate = returned_sqlstate, v_constraint = constraint_name;
      if not pullgate.is_of_row(v_sqlstate) then
        raise;
      end if;
  end;
  if v_half = 0 then
    return (pullgate.set_aside(p_ids[1], v_sqlstate, v_constraint) is not null)::integer;
  end if;
  return pullgate.change_all(p_ids[:v_half], p_state) + pullgate.change_all(p_ids[v_half + 1:], p_state);
end
$$;

-- Ends the hold of a locked job without a word of its executor. p_how:
--   undelivered   reached nobody (undo_claim)
--   released      its subscription was ended (settle_release)
--   in doubt      its hand-over broke or was never confirmed (lose)
--   lease ended   (lose)
--   offer ended   (withdraw)
--   key released  a delivered job has kept its dedupe key for a day (finish)
-- Returns the job's new state. Reads the row itself: a row that is passed on is unpacked by the caller, where corrupted
-- data would not be caught.
create or replace function pullgate.end_hold(p_id bigint, p_how text)
returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job pullgate.job;
begin
  select j.* into strict v_job from pullgate.job j where j.id = p_id;
  v_job.job_spec := null;
  case p_how
    when 'undelivered' then
      return pullgate.undo_claim(v_job);
    when 'released' then
      return (pullgate.settle_release(p_id, v_job.lease, null)).state;
    when 'in doubt' then
      return pullgate.lose(v_job, true);
    when 'lease ended' then
      return pullgate.lose(v_job, v_job.auto_ack);
    when 'offer ended' then
      return pullgate.withdraw(v_job);
    when 'key released' then
      perform pullgate.finish(v_job, 'delivered');
      return 'delivered';
  end case;
end
$$;

-- end_hold for several locked jobs; p_hows has a word for each. Where the data of a job refuse, halves the set until that
-- job is found, and sets it aside. Returns the new states in the order given, null for a job that could not even be set
-- aside. One subtransaction where all goes well: one for each job would overflow the snapshots of all sessions.
create or replace function pullgate.end_holds(p_ids bigint[], p_hows text[])
returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_half integer := cardinality(p_ids) / 2;
  v_states text[] := '{}';
  v_sqlstate text;
  v_constraint text;
begin
  if cardinality(p_ids) = 0 then
    return v_states;
  end if;
  begin
    for v_place in 1..cardinality(p_ids) loop
      v_states := v_states || pullgate.end_hold(p_ids[v_place], p_hows[v_place]);
    end loop;
    return v_states;
  exception
    when others then
      get stacked diagnostics v_sqlstate = returned_sqlstate, v_constraint = constraint_name;
      if not pullgate.is_of_row(v_sqlstate) then
        raise;
      end if;
  end;
  if v_half = 0 then
    return array[pullgate.set_aside(p_ids[1], v_sqlstate, v_constraint)];
  end if;
  return pullgate.end_holds(p_ids[:v_half], p_hows[:v_half])
    || pullgate.end_holds(p_ids[v_half + 1:], p_hows[v_half + 1:]);
end
$$;

-- For a gateway whose claim failed on the data of a job: tries the jobs that a claim of these topics would take, as many
-- of each lane as p_limit, and sets aside those that cannot be read or changed. Returns how many.
-- Locks: the jobs it tries, each waited for 1 s at most (55P03). The gateway hears of its claim's error before the claim has
-- let go of the job, which SKIP LOCKED would pass over.
create or replace function pullgate.set_aside_unclaimable(
  p_topics bigint[],
  p_lanes bigint[],
  p_marks bigint[],
  p_limit integer
)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_lane bigint;
  v_id bigint;
  v_sqlstate text;
  v_constraint text;
  v_count integer := 0;
begin
  perform set_config('lock_timeout', '1s', true);
  for v_lane in select distinct t.id from pullgate.lane_twin t where t.topic_id = any (p_topics) loop
    for v_id in
      select j.id from pullgate.job j
        where j.lane_id = v_lane and j.state = 'ready' and j.seq > pullgate.mark_of(v_lane, p_lanes, p_marks)
          and (j.expires_at is null or j.expires_at > v_now)
        order by j.seq limit p_limit
        for update
    loop
      begin
        -- As text: every column is unpacked.
        perform length(j::text) from pullgate.job j where j.id = v_id;
        update pullgate.job j set
            state = 'running', attempts = j.attempts + 1, claimed_at = v_now, lease = gen_random_uuid(),
            lease_ends_at = v_now, lease_check_at = v_now, auto_ack = true
          where j.id = v_id;
        raise exception 'all is well' using errcode = 'UNDO0';
      exception
        -- The trial is undone.
        when sqlstate 'UNDO0' then null;
        when others then
          get stacked diagnostics v_sqlstate = returned_sqlstate, v_constraint = constraint_name;
          if not pullgate.is_of_row(v_sqlstate) then
            raise;
          end if;
          v_count := v_count + (pullgate.set_aside(v_id, v_sqlstate, v_constraint) is not null)::integer;
      end;
    end loop;
  end loop;
  return v_count;
end
$$;

-- For a gateway whose settle of this job alone failed on the job's data: sets it aside, if the lease still counts. Else the
-- job would be run again when its lease ends, and its settle would fail again. Returns whether it did.
-- Locks: the job.
create or replace function pullgate.set_aside_held(p_id bigint, p_lease uuid, p_sqlstate text, p_constraint text)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pullgate.is_of_row(p_sqlstate) then
    return false;
  end if;
  perform from pullgate.job j where j.id = p_id and j.lease = p_lease and j.settled is null for update;
  return found and pullgate.set_aside(p_id, p_sqlstate, p_constraint) is not null;
end
$$;
