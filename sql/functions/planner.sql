-- How statements are planned: the one place for planner settings. `migrate` runs this file again after every change, since
-- replacing a function drops its settings.
--
-- They are set on the functions that run as their owner, which are those that may be called from outside; what these call
-- is planned within them. A plan must not depend on statistics, nor on the settings of the role that calls:
--   enable_seqscan      a plan that was made while a table was empty would otherwise scan what has come since
--   enable_nestloop     the one join that looks up the rows of a table by index, for each element of an array
--   enable_bitmapscan, enable_indexscan
--                       an index is read in its order, not collected and sorted. Not for publish, which has no order: each
--                       setting costs 1 to 2 per cent of a publish
--   plan_cache_mode     planned once. For each call anew, for the length of its arrays, took 100 to 250 us where running
--                       it takes 30; a claim 1,250 us where it takes 250
--   jit                 before Postgres 18 a scan that is off but has no alternative is given a cost at which
--                       JIT compilation begins
-- Joins are not a matter of settings but of how a statement is written: docs/adr/0004-plans.md.
do $$
declare
  v_function regprocedure;
  v_name name;
begin
  for v_function, v_name in
    select p.oid, p.proname from pg_proc p where p.pronamespace = 'pullgate'::regnamespace and p.prosecdef
  loop
    execute format(
      'alter function %s set enable_seqscan = off set enable_nestloop = on '
      'set plan_cache_mode = force_generic_plan set jit = off', v_function);
    continue when v_name = 'publish';
    execute format('alter function %s set enable_bitmapscan = off set enable_indexscan = on', v_function);
  end loop;
end
$$;
