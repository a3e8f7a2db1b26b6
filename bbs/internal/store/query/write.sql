-- The statements of one batch of the writer, in their order. Everything is decided in Go between the
-- reads and the writes; nothing here names a state.

-- name: discard_plans
discard plans

-- name: begin_batch
begin isolation level read committed

-- name: rollback
rollback

-- name: commit
commit

-- Whoever writes records of a process or a cell holds its lock until the end of the transaction. So
-- rows that do not exist yet are locked too. The keys arrive sorted: no two writers can deadlock. The last
-- lock is the right to seal with a key: append_events tells whether it was there to be had.
-- name: lock_subjects
select pg_advisory_xact_lock(key) from unnest($1::bigint[]) as key
union all
select pg_advisory_xact_lock_shared($2::integer, $3::integer)

-- Where the log stands.
-- name: newest_revision
select revision from sequencer

-- The locks are held, so a transaction of an earlier try has ended by now, one way or the other.
-- The second answer tells whether the first one can be trusted: the log reaches back so far.
-- name: batch_committed
select exists (select from events where revision > $1 and batch = $2),
	exists (select from sequencer where revision = $1) or exists (select from events where revision = $1 + 1)

-- name: read_desired
select process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs, memory_mb,
	disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, run_info
from desired_lrps where process_guid = any($1::text[])

-- All instances of some processes.
-- name: read_instances
select process_guid, index, presence::text, domain, state::text, instance_guid, cell_id, net_info,
	placement_error, crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable,
	availability_zone, retiring
from actual_lrps where process_guid = any($1::text[])

-- The instances of some slots, and before each what is wanted of its process. A slot without an instance
-- has a row too, without a presence; a process that nobody wants has no domain.
-- name: read_slots
select coalesce(d.domain, ''), coalesce(d.instances, 0), coalesce(d.update_strategy, 0),
	slot.process_guid, slot.index, coalesce(a.presence::text, ''), coalesce(a.domain, ''), coalesce(a.state::text, ''),
	coalesce(a.instance_guid, ''), coalesce(a.cell_id, ''), a.net_info, coalesce(a.placement_error, ''),
	coalesce(a.crash_count, 0), coalesce(a.crash_reason, ''), coalesce(a.since, 'epoch'), coalesce(a.tag_epoch, ''),
	coalesce(a.tag_index, 0), a.reported, coalesce(a.routable, false), coalesce(a.availability_zone, ''),
	coalesce(a.retiring, false)
from unnest($1::text[], $2::integer[]) as slot (process_guid, index)
left join desired_lrps d on d.process_guid = slot.process_guid
left join actual_lrps a on a.process_guid = slot.process_guid and a.index = slot.index

-- name: insert_desired
insert into desired_lrps (process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs,
	memory_mb, disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, run_info)
select process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs,
	memory_mb, disk_mb, max_pids, placement_tags::jsonb, volume_drivers, update_strategy, tag_epoch,
	tag_index, run_info
from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::bytea[], $7::bytea[], $8::text[],
	$9::integer[], $10::integer[], $11::integer[], $12::text[], $13::bytea[], $14::integer[], $15::text[],
	$16::bigint[], $17::bytea[])
as new (process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs,
	memory_mb, disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, run_info)

-- Only what can be updated. A recipe that did not change arrives as null and is not written again.
-- name: update_desired
update desired_lrps as d
set instances = new.instances, annotation = new.annotation, routes = new.routes,
	metric_tags = new.metric_tags, tag_epoch = new.tag_epoch, tag_index = new.tag_index,
	run_info = coalesce(new.run_info, d.run_info)
from unnest($1::text[], $2::integer[], $3::text[], $4::bytea[], $5::bytea[], $6::text[], $7::bigint[], $8::bytea[])
as new (process_guid, instances, annotation, routes, metric_tags, tag_epoch, tag_index, run_info)
where d.process_guid = new.process_guid

-- name: delete_desired
delete from desired_lrps where process_guid = any($1::text[])

-- name: insert_actuals
insert into actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info,
	placement_error, crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable,
	availability_zone, retiring)
select process_guid, index, presence::lrp_presence, domain, state::lrp_state, instance_guid, cell_id, net_info,
	placement_error, crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable,
	availability_zone, retiring
from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
	$9::text[], $10::integer[], $11::text[], $12::timestamptz[], $13::text[], $14::bigint[], $15::bytea[],
	$16::boolean[], $17::text[], $18::boolean[])
as new (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info,
	placement_error, crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable,
	availability_zone, retiring)

-- name: update_actuals
update actual_lrps as a
set domain = new.domain, state = new.state::lrp_state, instance_guid = new.instance_guid, cell_id = new.cell_id,
	net_info = new.net_info, placement_error = new.placement_error, crash_count = new.crash_count,
	crash_reason = new.crash_reason, since = new.since, tag_epoch = new.tag_epoch, tag_index = new.tag_index,
	reported = new.reported, routable = new.routable, availability_zone = new.availability_zone,
	retiring = new.retiring
from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
	$9::text[], $10::integer[], $11::text[], $12::timestamptz[], $13::text[], $14::bigint[], $15::bytea[],
	$16::boolean[], $17::text[], $18::boolean[])
as new (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info,
	placement_error, crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable,
	availability_zone, retiring)
where a.process_guid = new.process_guid and a.index = new.index and a.presence = new.presence::lrp_presence

-- name: delete_actuals
delete from actual_lrps as a
using unnest($1::text[], $2::integer[], $3::text[]) as old (process_guid, index, presence)
where a.process_guid = old.process_guid and a.index = old.index and a.presence = old.presence::lrp_presence

-- A heartbeat is worth no wait for the disk: the cell sends another one.
-- name: relax_commit
set local synchronous_commit to off

-- The last statement before the commit. The notification reaches the other replicas, if it is time for
-- one. The last column tells whether the key that the batch was sealed with may be used no more.
-- name: append_events
with taken as (
	update sequencer set revision = revision + cardinality($1::text[])
	returning revision - cardinality($1::text[]) as base
), inserted as (
	insert into events (revision, committed_at, batch, trace_id, process_guid, domain, cell_before, cell_after, payload)
	select taken.base + new.position, $7::timestamptz, $8::bigint, new.trace_id, new.process_guid, new.domain,
		new.cell_before, new.cell_after, new.payload
	from taken, unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[]) with ordinality
	as new (trace_id, process_guid, domain, cell_before, cell_after, payload, position)
)
select base, case when $9::boolean then pg_notify('bbs_events', (base + cardinality($1::text[]))::text) end,
	exists (select from encryption where label = $10 and closed_at is not null)
from taken

-- A notification that was put off: by now the log stands there, or further on.
-- name: notify_events
select pg_notify('bbs_events', revision::text) from sequencer
