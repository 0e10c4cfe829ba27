-- What a person should look at, and sequences, which gateways mend by themselves.

-- Moves sequences forward that are behind the rows, as after a switch to a logical replica, which leaves sequences where
-- they were: ids would be handed out twice, and jobs would land below the low-water marks. Returns their names.
--
-- Nothing is behind when no row lies above the last value: each probe reads one index entry, or none. The snapshot of
-- the statement is older than the value that it reads, so a publisher at work raises no false alarm.
-- A sequence must never be set back by two that mend it at once, hence the lock, under which the value is read again.
-- A short gap is walked with nextval, which is safe whatever others draw meanwhile. A long one is jumped over: others
-- would have to draw a million values between two lines of this function.
-- Locks: the row of pullgate.setting, only where a sequence is behind.
create or replace function pullgate.mend_sequences()
returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
  v_mended text[] := '{}';
  v_last bigint;
  v_highest bigint;
begin
  for v_name in select b.name from pullgate.sequences_behind() b order by b.name loop
    perform from pullgate.setting s for update;
    select b.last, b.highest into v_last, v_highest from pullgate.sequences_behind() b where b.name = v_name;
    continue when not found;
    if v_highest - v_last < 1000000 then
      perform count(nextval(v_name::regclass)) from generate_series(1, v_highest - v_last);
    else
      perform setval(v_name::regclass, v_highest);
    end if;
    v_mended := v_mended || v_name;
  end loop;
  return v_mended;
end
$$;

-- The sequences that are behind: their last value, and the highest that a row has.
create or replace function pullgate.sequences_behind()
returns table (name text, last bigint, highest bigint)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select 'pullgate.job_id_seq', s.last, r.highest
    from (select case when q.is_called then q.last_value else q.last_value - 1 end as last from pullgate.job_id_seq q) s
    cross join lateral (
      select max(m.id) as highest
        from (
          select (select max(j.id) from pullgate.job j where j.id > s.last) as id
          union all
          select (select max(h.id) from pullgate.history h where h.id > s.last)
        ) m
    ) r
    where r.highest is not null
  union all
  select 'pullgate.job_seq', s.last, r.highest
    from (select case when q.is_called then q.last_value else q.last_value - 1 end as last from pullgate.job_seq q) s
    cross join lateral (
      select max(m.seq) as highest
        from pullgate.lane_twin t
        cross join lateral (
          select j.seq from pullgate.job j
            where j.lane_id = t.id and j.state = 'ready' and j.seq > s.last
            order by j.seq desc limit 1
        ) m
    ) r
    where r.highest is not null
$$;

-- What a person should look at, a row per problem; none if all is well. Cost: the jobs that are set aside, by an index of
-- their own, and the end of each lane.
--   problem   jobs-set-aside, sequence-behind
--   things    how many
--   detail    which, and what to do; the first few
create or replace function pullgate.doctor()
returns table (problem text, things integer, detail text)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select 'jobs-set-aside', count(*)::integer,
      string_agg('job ' || a.id || ' ' || a.last_error, '; ' order by a.id) filter (where a.position <= 5)
        || '. Mend what the SQLSTATE names, then pullgate.retry, complete, fail or cancel each.'
    from (
      select j.id, j.last_error, row_number() over (order by j.id) as position from pullgate.job j
        where j.state = 'orphaned' and starts_with(j.last_error, 'set aside: ')
    ) a
    having count(*) > 0
  union all
  select 'sequence-behind', count(*)::integer,
      string_agg(b.name || ' is at ' || b.last || ', rows are at ' || b.highest, '; ' order by b.name)
        || '. A gateway moves it forward within a minute, and so does `pullgate migrate`.'
    from pullgate.sequences_behind() b
    having count(*) > 0
$$;
