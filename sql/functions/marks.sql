-- Low-water marks: where claims and looks begin, so that they do not walk what is behind them.
--
-- While any transaction of the cluster stays open, index entries of claimed jobs cannot be removed, and every look at
-- the head of a lane reads all of them: 10-row claims fell from 643/s to 198/s within 24 s. So each gateway keeps a mark
-- per lane, below which no ready job is or will be, and an instant before which nothing falls due.
--
-- A mark at the highest claimed seq would strand jobs of transactions that commit late. A safe one: read the last
-- seq drawn, `upto`, then draw a fresh transaction id, `fence`. A job draws its seq after its transaction's id
-- (the default of job.seq, job_becomes_ready), so whoever drew a seq up to `upto` has an id below the fence. Once all
-- of those have ended, what is visible is all there will ever be up to `upto`, and the mark may go to just before the
-- lowest ready seq that is visible. A job that a claim has locked is visible as ready until that claim commits.
--
-- The same holds for time: what is to fall due gets its instant after its transaction's id, or seconds ahead.

-- The mark of a lane, 0 if it has none. p_lanes ascends: it is halved, since a look at 1,000 topics with a mark for each of
-- their lanes took 34 ms where it walked the array and takes 8. A lane that is out of order has no mark, and is walked.
-- No settings of its own, so that it is inlined.
create or replace function pullgate.mark_of(p_lane bigint, p_lanes bigint[], p_marks bigint[])
returns bigint
language sql immutable
return case when p_lanes[pg_catalog.width_bucket(p_lane, p_lanes)] operator(pg_catalog.=) p_lane
  then p_marks[pg_catalog.width_bucket(p_lane, p_lanes)] else 0 end;

-- Applies the pair (p_upto, p_fence, p_at) that an earlier call drew, if all transactions below the fence but
-- p_left_out have ended, and draws the next one; else returns the same pair again.
--   p_topics            whose lanes to look at; p_lanes, p_marks: where their marks stand
--   p_left_out          transactions that run for long: what they leave behind is found by pullgate.reseat
--   passed              whether the pair was applied: then `topics`, `lanes` and `marks`, side by side, hold the marks,
--                       and due_after the instant up to which nothing is due
--   running             transactions that still run, of those below the fence and those left out
-- Locks nothing.
create or replace function pullgate.advance_marks(
  p_topics bigint[],
  p_lanes bigint[],
  p_marks bigint[],
  p_due_after timestamptz,
  p_upto bigint,
  p_fence xid8,
  p_at timestamptz,
  p_left_out xid8[],
  out passed boolean,
  out topics bigint[],
  out lanes bigint[],
  out marks bigint[],
  out due_after timestamptz,
  out upto bigint,
  out fence xid8,
  out at timestamptz,
  out running xid8[]
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_snapshot pg_snapshot := pg_current_snapshot();
  v_after timestamptz := coalesce(p_due_after, '-infinity');
begin
  running := array(
    select x from pg_snapshot_xip(v_snapshot) as x where x < p_fence or x = any (p_left_out));
  passed := p_fence is not null and running <@ p_left_out;
  if passed then
    -- Volatile: this sees all that had ended in the snapshot above.
    select array_agg(l.topic_id), array_agg(l.id), array_agg(greatest(l.mark, least(p_upto, head.seq - 1)))
      into topics, lanes, marks
      from (
        select distinct t.topic_id, t.id, pullgate.mark_of(t.id, p_lanes, p_marks) as mark
          from pullgate.lane_twin t where t.topic_id = any (p_topics)
      ) l
      left join lateral (
        select j.seq from pullgate.job j
          where j.lane_id = l.id and j.state = 'ready' and j.seq > l.mark
          order by j.seq limit 1
      ) head on true;
    -- Five seconds back: for the time between a clock's reading and the drawing of an id, and for a clock set back.
    due_after := greatest(v_after, least(
      p_at - interval '5 seconds', (pullgate.next_due(v_after, p_at)).at - interval '1 microsecond'));
  end if;
  if passed or p_fence is null then
    at := clock_timestamp();
    select case when s.is_called then s.last_value else 0 end into upto from pullgate.job_seq s;
    fence := pg_current_xact_id();
  else
    upto := p_upto;
    fence := p_fence;
    at := p_at;
  end if;
end
$$;

-- Gives ready jobs with a seq above p_from and up to their lane's mark a new one, in the returned twin, which is served
-- first: what a transaction that had been left out of the fence leaves behind, once it has ended. At most p_limit, and
-- none that is locked: a claim that lets go of it would leave it where no claim looks any more, so `remaining` says
-- whether there are others, and the caller comes again. Their topics are woken, and returned.
-- Locks: SKIP LOCKED on the jobs it moves. It never waits.
create or replace function pullgate.reseat(
  p_lanes bigint[],
  p_marks bigint[],
  p_from bigint,
  p_limit integer,
  out topics bigint[],
  out remaining boolean
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := case when pg_current_xact_id() is not null then clock_timestamp() end;
  v_ids bigint[];
begin
  v_ids := array(
    select head.id
      from unnest(p_lanes, p_marks) as l (id, mark)
      cross join lateral (
        select j.id from pullgate.job j
          where j.lane_id = l.id and j.state = 'ready' and j.seq > p_from and j.seq <= l.mark
          order by j.seq limit p_limit
          for update skip locked) as head
      limit p_limit);
  with seated as (
    update pullgate.job j set seq = s.seq, lane_id = j.lane_id | 1
      from (
        select i.id, nextval('pullgate.job_seq') as seq
          from (select r.id from pullgate.job r where r.id = any (v_ids) order by r.seq) i
      ) s
      where j.id = any (array[s.id])
      returning j.topic_id
  )
  select coalesce(array_agg(distinct s.topic_id), '{}') into topics from seated s;
  perform pullgate.notify(t.id, v_now, v_now) from unnest(topics) as t (id);
  remaining := exists (
    select from unnest(p_lanes, p_marks) as l (id, mark)
      cross join lateral (
        select from pullgate.job j
          where j.lane_id = l.id and j.state = 'ready' and j.seq > p_from and j.seq <= l.mark
          order by j.seq limit 1) as head);
end
$$;
