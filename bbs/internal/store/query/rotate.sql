-- The keys of sealed values, and the replacement of one by another.

-- Whoever changes the table reads it first, and nobody else does meanwhile.
-- name: lock_keys
lock table encryption in exclusive mode

-- name: read_keys
select label, canary, closed_at is not null, retired_at is not null from encryption order by generation

-- For as long as the session lasts: this replica knows a key ...
-- name: know_key
select pg_advisory_lock_shared($1::integer, $2::integer)

-- ... and for as long as the transaction lasts, which is a shorter time: it seals with it.
-- name: use_key
select pg_advisory_xact_lock_shared($1::integer, $2::integer)

-- The sessions that hold a lock of the first class and none of the second class on a certain key.
-- name: replicas_without_key
with held as (
	select pid, classid::bigint as class, objid::bigint as key from pg_locks
	where locktype = 'advisory' and objsubid = 2 and granted
		and database = (select oid from pg_database where datname = current_database())
)
select count(distinct pid) from held
where class = $1::bigint and pid <> pg_backend_pid()
	and pid not in (select pid from held where class = $2::bigint and key = $3::bigint)

-- The label becomes the newest, and open.
-- name: open_key
insert into encryption (label, canary, generation)
select $1::text, $2::bytea, max(generation) + 1 from encryption
on conflict (label) do update
set canary = excluded.canary, generation = excluded.generation, closed_at = null, retired_at = null

-- name: key_closed
select exists (select from encryption where label = $1 and closed_at is not null)

-- Nobody seals with the key at this moment, and from now on nobody will. No row: somebody does.
-- name: close_key
with free as materialized (select pg_try_advisory_xact_lock($2::integer, $3::integer) as yes)
update encryption set closed_at = coalesce(closed_at, now()) from free where label = $1 and yes returning label

-- Unless it was opened again.
-- name: retire_key
update encryption set retired_at = now() where label = $1 and closed_at is not null and retired_at is null returning label

-- name: rotation_lock
select pg_try_advisory_lock($1::integer, 0)

-- Rows of a table that are not sealed with the active key, whose header is the first argument: the
-- key of the row, what its values are bound to, and the values. They go on after a key.
-- name: stale_desired
select array[process_guid], array[process_guid], array[routes, metric_tags, volume_drivers, run_info]
from desired_lrps
where process_guid > $3 and (
	substring(routes from 1 for octet_length($1::bytea)) not in ('', $1::bytea)
	or substring(metric_tags from 1 for octet_length($1::bytea)) not in ('', $1::bytea)
	or substring(volume_drivers from 1 for octet_length($1::bytea)) not in ('', $1::bytea)
	or substring(run_info from 1 for octet_length($1::bytea)) not in ('', $1::bytea))
order by process_guid limit $2

-- All rows of a slot come together, because they can change places.
-- name: stale_actuals
select array[process_guid, index::text, presence::text], array[process_guid, index::text, instance_guid],
	array[net_info, reported]
from actual_lrps
where (process_guid, index) > ($3, $4::text::integer) and (
	substring(net_info from 1 for octet_length($1::bytea)) not in ('', $1::bytea)
	or substring(reported from 1 for octet_length($1::bytea)) not in ('', $1::bytea))
order by process_guid, index fetch first $2 rows with ties

-- name: stale_tasks
select array[task_guid], array[task_guid], array[definition]
from tasks
where task_guid > $3 and substring(definition from 1 for octet_length($1::bytea)) not in ('', $1::bytea)
order by task_guid limit $2

-- name: stale_events
select array[revision::text], array[batch::text, trace_id, process_guid, domain, cell_before, cell_after], array[payload]
from events
where revision > $3::text::bigint and substring(payload from 1 for octet_length($1::bytea)) not in ('', $1::bytea)
order by revision limit $2

-- The same rows, sealed again, unless they have changed meanwhile. Rows that somebody writes are left
-- for later: whoever never waits for a row causes no deadlock. Nothing is written with a key that was
-- closed.
-- name: reseal_desired
with new as materialized (
	select * from unnest($2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[])
	as new (process_guid, routes_was, routes, tags_was, tags, drivers_was, drivers, run_info_was, run_info)
), free as materialized (
	select d.process_guid from desired_lrps d join new using (process_guid) for update of d skip locked
)
update desired_lrps d
set routes = new.routes, metric_tags = new.tags, volume_drivers = new.drivers, run_info = new.run_info
from new join free using (process_guid)
where d.process_guid = new.process_guid and d.routes = new.routes_was and d.metric_tags = new.tags_was
	and d.volume_drivers = new.drivers_was and d.run_info = new.run_info_was
	and not exists (select from encryption where label = $1 and closed_at is not null)

-- name: reseal_actuals
with new as materialized (
	select process_guid, index::integer, presence::lrp_presence, net_info_was, net_info, reported_was, reported
	from unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[])
	as new (process_guid, index, presence, net_info_was, net_info, reported_was, reported)
), free as materialized (
	select a.process_guid, a.index, a.presence from actual_lrps a join new using (process_guid, index, presence)
	for update of a skip locked
)
update actual_lrps a
set net_info = new.net_info, reported = new.reported
from new join free using (process_guid, index, presence)
where a.process_guid = new.process_guid and a.index = new.index and a.presence = new.presence
	and a.net_info is not distinct from new.net_info_was and a.reported = new.reported_was
	and not exists (select from encryption where label = $1 and closed_at is not null)

-- name: reseal_tasks
with new as materialized (
	select * from unnest($2::text[], $3::bytea[], $4::bytea[]) as new (task_guid, definition_was, definition)
), free as materialized (
	select t.task_guid from tasks t join new using (task_guid) for update of t skip locked
)
update tasks t set definition = new.definition
from new join free using (task_guid)
where t.task_guid = new.task_guid and t.definition = new.definition_was
	and not exists (select from encryption where label = $1 and closed_at is not null)

-- name: reseal_events
with new as materialized (
	select revision::bigint, payload_was, payload
	from unnest($2::text[], $3::bytea[], $4::bytea[]) as new (revision, payload_was, payload)
), free as materialized (
	select e.revision from events e join new using (revision) for update of e skip locked
)
update events e set payload = new.payload
from new join free using (revision)
where e.revision = new.revision and e.payload = new.payload_was
	and not exists (select from encryption where label = $1 and closed_at is not null)
