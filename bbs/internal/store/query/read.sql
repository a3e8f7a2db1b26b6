-- Reads. A list and the revision it shows come from one snapshot.

-- name: begin_read
begin isolation level repeatable read read only

-- Lists are in the order of their primary keys and go on after one: a page is found by the index,
-- however far back it is. A limit of 0 is none.
-- name: list_desired
select process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs, memory_mb,
	disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, run_info
from desired_lrps
where ($1::text = '' or domain = $1)
	and (cardinality($2::text[]) = 0 or process_guid = any($2))
	-- Not like: a _ is a letter of GUIDs and not a wildcard.
	and (cardinality($3::text[]) = 0 or exists (select from unnest($3) prefix where starts_with(process_guid, prefix)))
	and ($4::text = '' or process_guid > $4)
order by process_guid
limit nullif($5::bigint, 0)

-- The same without recipes.
-- name: list_scheduling
select process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs, memory_mb,
	disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, null::bytea
from desired_lrps
where ($1::text = '' or domain = $1)
	and (cardinality($2::text[]) = 0 or process_guid = any($2))
	and (cardinality($3::text[]) = 0 or exists (select from unnest($3) prefix where starts_with(process_guid, prefix)))
	and ($4::text = '' or process_guid > $4)
order by process_guid
limit nullif($5::bigint, 0)

-- name: list_actuals
select process_guid, index, presence::text, domain, state::text, instance_guid, cell_id, net_info,
	placement_error, crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable,
	availability_zone, retiring
from actual_lrps
where ($1::text = '' or domain = $1)
	and ($2::text = '' or cell_id = $2)
	and (cardinality($3::text[]) = 0 or process_guid = any($3))
	and ($4::integer is null or index = $4)
	and ($5::text = '' or (process_guid, index, presence) > ($5, $6::integer, $7::text::lrp_presence))
order by process_guid, index, presence
limit nullif($8::bigint, 0)

-- name: list_domains
select domain from domains where expires_at is null or expires_at > now() order by domain

-- name: upsert_domain
insert into domains (domain, expires_at)
values ($1, case when $2::bigint > 0 then now() + $2 * interval '1 second' end)
on conflict (domain) do update set expires_at = excluded.expires_at

-- name: delete_stale_domains
delete from domains where expires_at < now()

-- The log after a revision, and where it ends: one row at least, without a revision of its own when
-- there is nothing newer.
-- There are no gaps, so bounds are a limit, and one that makes the planner use the index.
-- name: events_after
select s.revision, e.revision, e.committed_at, e.batch, e.trace_id, e.process_guid, e.domain, e.cell_before,
	e.cell_after, e.payload
from sequencer s
left join lateral (select * from events where revision > $1 and revision <= $1::bigint + $2::bigint order by revision) e on true
order by e.revision

-- Cuts the log by age and by count, and never the newest entry. It cuts off a beginning and leaves no
-- hole: by age up to the first entry that is young enough, although an older one may follow, because
-- entries get their times before their revisions, and by the clocks of several replicas.
-- name: prune_events
with portion as (
	select revision, committed_at >= now() - $1::bigint * interval '1 millisecond' as young
	from events where revision < (select min(revision) + $3::bigint from events)
)
delete from events
where revision < (select revision from sequencer)
	and revision <= (select max(revision) from portion)
	and (revision <= (select revision from sequencer) - $2::bigint
		or revision < coalesce((select min(revision) from portion where young), (select max(revision) + 1 from portion)))
