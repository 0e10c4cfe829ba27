-- Tables of pullgate. Every process reaches them through the functions in sql/functions; the tables may change.
--
--   topic -- settings of a topic            lane -- the FIFOs that topics are made of
--   job ---- live jobs, kept narrow         history -- finished jobs, a ring of 32 daily partitions
--   subscription -- an executor pool's standing claim
--
-- There are no foreign keys from job: their share locks would write to the few hot topic and lane rows on
-- every publish, and a publisher may keep its transaction open for minutes.

create table pullgate.setting (
  only_row boolean not null default true,
  create_topics boolean not null default true,
  job_spec_max_bytes integer not null default 1048576,
  history_days integer not null default 14,
  subscription_idle_days integer not null default 7,
  constraint setting_pkey primary key (only_row),
  constraint setting_only_row check (only_row),
  constraint setting_job_spec_max_bytes check (job_spec_max_bytes between 1024 and 104857600),
  -- The ring has 32 slots; one holds today and one may be in the middle of being emptied.
  constraint setting_history_days check (history_days between 1 and 30),
  constraint setting_subscription_idle_days check (subscription_idle_days between 1 and 3650)
);

insert into pullgate.setting default values;

-- id is a digest of the name (pullgate.topic_id), so that publishers agree on it without waiting for each other.
create table pullgate.topic (
  id bigint not null,
  name text not null,
  paused boolean not null default false,
  max_attempts smallint not null default 5,
  on_lost text not null default 'requeue',
  created_at timestamptz not null default clock_timestamp(),
  constraint topic_pkey primary key (id),
  constraint topic_name_key unique (name),
  constraint topic_name check (name ~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$'),
  constraint topic_max_attempts check (max_attempts between 1 and 100),
  constraint topic_on_lost check (on_lost in ('requeue', 'orphan', 'fail'))
);

-- A publisher registers a lane it cannot see, inside its own open transaction. A unique constraint would make
-- the next publisher wait for that transaction, so there is none: rows of one lane carry the same id (a digest),
-- and readers take distinct ones. There are at most as many as publishers that were first at the same time.
create table pullgate.lane (
  -- Always even: a job that comes back waits in the lane's returned twin, id | 1.
  id bigint not null,
  topic_id bigint not null,
  topic text not null,
  priority smallint not null,
  constraint lane_id_even check (id & 1 = 0),
  constraint lane_priority check (priority between -10 and 10)
);

create index lane_topic_priority on pullgate.lane (topic, priority);
create index lane_topic_id on pullgate.lane (topic_id);

-- A topic's name as an argument where Postgres should prefer another overload: sql/functions/publish-json.sql.
create domain pullgate.topic_name as text;

-- Every FIFO of a topic: each lane and its returned twin, which is served first. One row per registration.
create view pullgate.lane_twin as
  select l.topic_id, l.id | 1 - t.turn as id, l.priority, t.turn
    from pullgate.lane l
    cross join (values (0), (1)) as t (turn);

create table pullgate.subscription (
  id uuid not null default gen_random_uuid(),
  name text,
  topics text[] not null,
  ack text not null,
  lease_seconds integer not null,
  max_parked integer,
  created_at timestamptz not null default clock_timestamp(),
  -- Kept to the minute: a row written by every pull would be the hottest of the database.
  last_pull_at timestamptz,
  ended_at timestamptz,
  -- Two-phase delivery: a claimed job is only offered for so long, until its executor accepts it. Null: off.
  offer_seconds integer,
  constraint subscription_pkey primary key (id),
  constraint subscription_name check (length(name) between 1 and 200),
  constraint subscription_topics check (cardinality(topics) between 1 and 50),
  constraint subscription_ack check (ack in ('auto', 'explicit')),
  constraint subscription_lease_seconds check (lease_seconds between 10 and 43200),
  constraint subscription_max_parked check (max_parked between 1 and 1000000),
  constraint subscription_offer_seconds check (offer_seconds between 5 and 60),
  constraint subscription_offer_ack check (offer_seconds is null or ack = 'explicit')
);

create unique index subscription_live_name on pullgate.subscription (name) where ended_at is null;
create index subscription_ended_at on pullgate.subscription (ended_at) where ended_at is not null;

-- Order within a lane. cache 1: a session that keeps numbers back would let a later job pass an earlier one.
create sequence pullgate.job_seq as bigint cache 1;

create table pullgate.job (
  id bigint generated always as identity,
  -- Drawn afresh each time the job becomes ready (trigger job_becomes_ready), after its transaction has an id: no job
  -- with a lower seq can appear once every transaction up to a given id has ended. A case runs its condition first.
  seq bigint not null default case when pg_current_xact_id() is not null then nextval('pullgate.job_seq') end,
  lane_id bigint not null,
  topic_id bigint not null,
  -- The instant from which the job may be claimed; that of the last return for one that came back.
  due_at timestamptz not null default clock_timestamp(),
  -- The job's hold ends then. Not indexed: renewing it stays a heap-only update.
  lease_ends_at timestamptz,
  -- When to look at the job again: at or before lease_ends_at.
  lease_check_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  claimed_at timestamptz,
  expires_at timestamptz,
  lease uuid,
  subscription_id uuid,
  -- Of the pull that it was handed to, if that had one: a digest of subscription and Idempotency-Key. Null unless it is held.
  pull_key uuid,
  priority smallint not null default 0,
  attempts smallint not null default 0,
  max_attempts smallint not null default 5,
  deliveries smallint not null default 0,
  -- Offers in a row that were not accepted, one that stands included. Above 0 the lease, while it counts, is that of an
  -- offer, whose attempt is counted once it is accepted.
  unaccepted smallint not null default 0,
  auto_ack boolean not null default false,
  -- The gateway that claimed it last, and which of its claim statements did: a random number. 0: nobody that is watched.
  gateway_id integer not null default 0,
  claim_id bigint not null default 0,
  -- Handed out once more for its pull_key: what a gateway reports of an earlier hand-over does not count any more.
  given_again boolean not null default false,
  -- Its publisher sends the wake itself: see the trigger job_inserted.
  announced boolean not null default false,
  state text not null,
  -- Held by its gateway: claimed, and no executor is known to have it. The one place that says which jobs are given
  -- back when the gateway dies: automatic acknowledgements that wait for their evidence, and offers, unless they were made
  -- again by another hand. A lease that was handed out runs to its end whatever becomes of the gateway.
  unconfirmed boolean not null generated always as (
    auto_ack and state = 'running' or state = 'offered' and not given_again) stored,
  on_lost text not null default 'requeue',
  -- The verb that settled `lease`; null while the lease still counts, also after it ended.
  settled text,
  dedupe_key text,
  cancel_reason text,
  traceparent text,
  progress text,
  last_error text,
  -- One entry per attempt that did not succeed, the last 100: see pullgate.logged.
  log jsonb not null default '[]',
  job_spec text not null,
  constraint job_pkey primary key (id),
  constraint job_state check (state in ('scheduled', 'ready', 'offered', 'running', 'delivered', 'orphaned')),
  constraint job_on_lost check (on_lost in ('requeue', 'orphan', 'fail')),
  constraint job_max_attempts check (max_attempts between 1 and 100),
  constraint job_dedupe_key check (length(dedupe_key) between 1 and 500),
  constraint job_traceparent check (length(traceparent) <= 200)
) with (
  -- Room on each page for heap-only updates of leases.
  fillfactor = 80,
  -- The spec of a row above 2 KB leaves it, so that claims and heartbeats copy narrow rows: docs/adr/0002-spec-storage.md.
  toast_tuple_target = 256,
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.05,
  autovacuum_vacuum_cost_delay = 0
);

create index job_ready on pullgate.job (lane_id, seq) where state = 'ready';
create index job_due on pullgate.job (due_at) where state = 'scheduled';
create index job_lease_check on pullgate.job (lease_check_at) where lease_check_at is not null;
create index job_expires on pullgate.job (expires_at) where expires_at is not null and state in ('scheduled', 'ready');
create index job_orphaned on pullgate.job (topic_id) where state = 'orphaned';
-- By pullgate.set_aside.
create index job_set_aside on pullgate.job (id)
  where state = 'orphaned' and starts_with(last_error, 'set aside: ');
-- claimed_at, so that a look does not walk what was confirmed long ago: its entries stay while any transaction is open.
create index job_unconfirmed on pullgate.job (gateway_id, claimed_at) where unconfirmed;
create index job_pull_key on pullgate.job (pull_key) where pull_key is not null;
create unique index job_dedupe_key on pullgate.job (topic_id, dedupe_key) where dedupe_key is not null;

-- Finished jobs. day_slot is the day's number modulo 32: a day is dropped by truncating its slot, which needs no
-- DDL at run time, and a slot that was never emptied still takes rows.
create table pullgate.history (
  day_slot smallint not null,
  id bigint not null,
  lane_id bigint not null,
  topic_id bigint not null,
  due_at timestamptz not null,
  created_at timestamptz not null,
  claimed_at timestamptz,
  finished_at timestamptz not null,
  expires_at timestamptz,
  lease uuid,
  subscription_id uuid,
  priority smallint not null,
  attempts smallint not null,
  max_attempts smallint not null,
  deliveries smallint not null,
  auto_ack boolean not null,
  state text not null,
  on_lost text not null,
  settled text,
  dedupe_key text,
  cancel_reason text,
  traceparent text,
  progress text,
  result text,
  last_error text,
  log jsonb not null,
  job_spec text not null,
  constraint history_pkey primary key (id, day_slot),
  constraint history_state check (state in ('succeeded', 'failed', 'delivered', 'cancelled', 'expired'))
) partition by list (day_slot);

do $$
begin
  for v_slot in 0..31 loop
    execute format(
      'create table pullgate.history_%s partition of pullgate.history for values in (%s) '
      'with (toast_tuple_target = 256)',
      lpad(v_slot::text, 2, '0'), v_slot);
  end loop;
end
$$;

create index history_topic_finished on pullgate.history (topic_id, finished_at);

-- Publishes over HTTP that came with an Idempotency-Key, for 24 hours (sql/functions/publish-keys.sql).
create table pullgate.publish_key (
  -- Digests: of topic and key, and of the request's body. Neither is kept.
  key uuid not null,
  request uuid not null,
  -- What was answered. Null within the transaction that publishes, and nowhere else.
  job_id bigint,
  created_at timestamptz not null default clock_timestamp(),
  constraint publish_key_pkey primary key (key)
) with (
  -- Room for the heap-only update that adds job_id.
  fillfactor = 60,
  autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_cost_delay = 0
);

create index publish_key_created_at on pullgate.publish_key (created_at);

-- The last count of live jobs, taken by one gateway at a time and read by all (metrics, GET /topics).
create table pullgate.snapshot (
  only_row boolean not null default true,
  taken_at timestamptz not null,
  duration_seconds double precision not null,
  counts jsonb not null,
  constraint snapshot_pkey primary key (only_row),
  constraint snapshot_only_row check (only_row)
);

-- Topics that publishers send a NOTIFY for: a gateway has pulls parked on them. Every publish reads it, so it holds one
-- row per topic and gateway and none per pull. Unlogged: after a crash or a failover it is empty, which costs nothing,
-- since every gateway has lost its connections by then and arms anew.
create unlogged table pullgate.armed (
  topic_id bigint not null,
  gateway_id uuid not null,
  -- Not indexed: renewing stays a heap-only update.
  until timestamptz not null,
  constraint armed_pkey primary key (topic_id, gateway_id)
) with (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 500
);

-- Gateways, one row for each session that listens for one: pullgate.join_gateway. A session advisory lock on the id says
-- that it lives; an id whose lock is free is never locked again.
create table pullgate.gateway (
  id integer not null,
  started_at timestamptz not null default clock_timestamp(),
  constraint gateway_pkey primary key (id)
);
