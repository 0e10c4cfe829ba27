-- How statements are planned: the one place for planner settings. `migrate` runs this file again after every change, since
-- replacing a function drops its settings.
--
-- They are set on the functions that run as their owner, which are those that may be called from outside; what these call
-- is planned within them. A plan must not depend on statistics, nor on the settings of the role that calls:
--   enable_seqscan, enable_bitmapscan, enable_indexscan
--                       an index scan, in the order of its index: a plan that was made while a table was empty would
--                       otherwise scan, or collect and sort, what has come since
--   plan_cache_mode     planned once. For each call anew, for the length of its arrays, took 100 to 250 us where running
--                       it takes 30; a claim 1,250 us where it takes 250
--   jit                 before Postgres 18 a scan that is off but has no alternative is given a cost at which
--                       JIT compilation begins
-- Joins are not a matter of settings but of how a statement is written: sql/README.md, "Plans".
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc p where p.pronamespace = 'pullgate'::regnamespace and p.prosecdef
  loop
    execute format(
      'alter function %s set enable_seqscan = off set enable_bitmapscan = off set enable_indexscan = on '
      'set plan_cache_mode = force_generic_plan set jit = off', v_function);
  end loop;
end
$$;
