-- A pull that comes again with its key is given again what an earlier one with that key was handed: the same jobs under the
-- same leases, as long as they are unsettled and their hold lasts, whichever gateway it was and is.
--
-- The earlier hand-over may not be over: its gateway may yet find its connection broken and report that (give_back, doubt),
-- and the executor that is now on the job would have its lease taken away. So jobs that are given again are marked, and
-- reports do not count for those: from then on their executor and time alone decide. Report and mark both lock the row.
-- Whichever comes second sees the first: a job that was given back is not given again, one that was given again stays.
--
-- A claim for the key that has not committed when this looks is not seen. On the gateway of the repeated pull its jobs go
-- to that pull or back; elsewhere they are held until their write fails or their offer or lease ends.

-- What may be given again: for the n-th key at most p_counts[n] jobs, in the order in which they were handed out. A row per
-- job; `pull` is n. hold_seconds: how long the offer or lease still lasts.
-- Locks: the jobs by id, and nothing where there is none. Those of several are each waited for 200 ms at most (55P03).
create or replace function pullgate.give_again(p_keys uuid[], p_counts integer[])
returns table (
  pull integer,
  id bigint,
  topic_id bigint,
  lease uuid,
  lease_seconds integer,
  lease_ends_at timestamptz,
  hold_seconds double precision,
  offered boolean,
  attempt integer,
  redelivered boolean,
  published_at timestamptz,
  traceparent text,
  job_spec text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_ids bigint[] := array(
    select held.id
      from unnest(p_keys, p_counts) as k (key, count)
      cross join lateral (
        select j.id from pullgate.job j
          where j.pull_key = k.key and j.settled is null and j.state in ('offered', 'running')
            and j.lease_ends_at > v_now
          order by j.claimed_at, j.priority desc, j.lane_id & 1 desc, j.seq
          limit k.count
      ) held);
begin
  if cardinality(v_ids) = 0 then
    return;
  end if;
  if cardinality(v_ids) > 1 then
    perform pullgate.lock_jobs(v_ids);
  end if;
  return query
    with again as (
      update pullgate.job j set given_again = true
        -- As it is now, where somebody else had it locked.
        where j.id = any (v_ids) and j.pull_key = any (p_keys) and j.settled is null and j.state in ('offered', 'running')
        returning j.*
    )
    select k.pull::integer, j.id, j.topic_id, j.lease, coalesce(s.lease_seconds, 60), j.lease_ends_at,
        extract(epoch from j.lease_ends_at - v_now)::double precision, j.state = 'offered',
        j.attempts + (j.unaccepted > 0)::integer, j.deliveries > 1, j.created_at, j.traceparent, j.job_spec
      from again j
      join unnest(p_keys) with ordinality as k (key, pull) on k.key = j.pull_key
      left join pullgate.subscription s on s.id = any (array[j.subscription_id])
      order by k.pull, j.claimed_at, j.priority desc, j.lane_id & 1 desc, j.seq;
end
$$;
