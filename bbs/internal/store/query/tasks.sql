-- Tasks, request ids and fencing tokens: reads and writes of one batch of the writer, and their lists.
-- Everything is decided in Go; nothing here names a state.

-- name: read_tasks
select task_guid, domain, state::text, cell_id, created_at, updated_at, first_completed_at, result, failed,
	failure_reason, rejection_count, rejection_reason, definition
from tasks where task_guid = any($1::text[])

-- name: list_tasks
select task_guid, domain, state::text, cell_id, created_at, updated_at, first_completed_at, result, failed,
	failure_reason, rejection_count, rejection_reason, definition
from tasks
where ($1::text = '' or domain = $1)
	and ($2::text = '' or cell_id = $2)
	and task_guid > $3
order by task_guid
limit nullif($4::integer, 0)

-- name: insert_tasks
insert into tasks (task_guid, domain, state, cell_id, created_at, updated_at, first_completed_at, result, failed,
	failure_reason, rejection_count, rejection_reason, definition)
select task_guid, domain, state::task_state, cell_id, created_at, updated_at, first_completed_at, result, failed,
	failure_reason, rejection_count, rejection_reason, definition
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
	$8::text[], $9::boolean[], $10::text[], $11::integer[], $12::text[], $13::bytea[])
as new (task_guid, domain, state, cell_id, created_at, updated_at, first_completed_at, result, failed,
	failure_reason, rejection_count, rejection_reason, definition)

-- Domain and definition never change, nor does the time of creation.
-- name: update_tasks
update tasks as t
set state = new.state::task_state, cell_id = new.cell_id, updated_at = new.updated_at,
	first_completed_at = new.first_completed_at, result = new.result, failed = new.failed,
	failure_reason = new.failure_reason, rejection_count = new.rejection_count, rejection_reason = new.rejection_reason
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::boolean[],
	$8::text[], $9::integer[], $10::text[])
as new (task_guid, state, cell_id, updated_at, first_completed_at, result, failed, failure_reason, rejection_count,
	rejection_reason)
where t.task_guid = new.task_guid

-- name: delete_tasks
delete from tasks where task_guid = any($1::text[])

-- name: read_requests
select r.request_id, r.item, r.digest
from unnest($1::text[], $2::integer[]) as asked (request_id, item)
join requests r using (request_id, item)

-- By the clock of the database, which is that of the pruner.
-- name: insert_requests
insert into requests (request_id, item, digest, at)
select request_id, item, digest, clock_timestamp()
from unnest($1::text[], $2::integer[], $3::bytea[]) as new (request_id, item, digest)

-- name: prune_requests
delete from requests
where ctid = any(array(
	select ctid from requests where at < now() - $1::bigint * interval '1 millisecond' limit $2::integer))

-- As lock_subjects, but some locks are shared. One list holds both kinds, so that all writers take
-- them in one order.
-- name: lock_fenced
select case when shared then pg_advisory_xact_lock_shared(key) else pg_advisory_xact_lock(key) end
from unnest($1::bigint[], $2::boolean[]) as subject (key, shared)
union all
select pg_advisory_xact_lock_shared($3::integer, $4::integer)

-- name: read_fences
select lease, token from fences where lease = any($1::text[])

-- name: upsert_fences
insert into fences (lease, token)
select lease, token from unnest($1::text[], $2::bigint[]) as new (lease, token)
on conflict (lease) do update set token = excluded.token

-- name: fence_token
select coalesce((select token from fences where lease = $1), 0)

-- How many records in a state the processes among some have that want a strategy. Which of them count is
-- decided in Go, so a row stands for records that are alike: retiring or not, wanted or beyond that.
-- name: count_running
select a.process_guid, min(a.index), a.retiring, count(*)
from desired_lrps d
join actual_lrps a using (process_guid)
where d.process_guid = any($1::text[]) and d.update_strategy = $2::smallint
	and a.presence = $3::lrp_presence and a.state = $4::lrp_state
group by a.process_guid, a.index < d.instances, a.retiring

-- The presence is part of the key: what is in the way was deleted before, and what takes the place
-- comes after.
-- name: move_actuals
update actual_lrps as a
set presence = new.after::lrp_presence, since = new.since, tag_epoch = new.tag_epoch, tag_index = new.tag_index
from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::bigint[])
as new (process_guid, index, before, after, since, tag_epoch, tag_index)
where a.process_guid = new.process_guid and a.index = new.index and a.presence = new.before::lrp_presence
