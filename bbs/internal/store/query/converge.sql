-- What convergence compares. A statement may select too much, never too little: bbs/converge decides.
-- States and presences arrive as arguments.

-- Counted first: it reads all of a table, and several processes may share in that.
-- name: count_actuals
select presence::text, state::text, count(*) from actual_lrps group by presence, state

-- name: count_desired
select count(*), coalesce(sum(instances), 0)::bigint from desired_lrps

-- How many tasks there are, and for those that are not due yet the earliest time of each kind: $1, $2 and $3
-- tell them apart.
-- name: count_tasks
select state::text, count(*), min(created_at) filter (where created_at > $1::timestamptz),
	min(updated_at) filter (where updated_at > $2::timestamptz), min(first_completed_at) filter (where first_completed_at > $3::timestamptz)
from tasks group by state

-- Tasks that may be due, of each state ($1 pending, $2 running, $3 completed, $4 resolving) those first that
-- have not changed for longest. $5, $6 and $7 are the marks of the policy: created, updated, completed. What
-- runs is due when its cell is not there; grace times are for Go. Definitions are long and sealed, and only
-- say whom to tell.
-- name: odd_tasks
with due as materialized (
	select t.task_guid, row_number() over (partition by t.state order by t.updated_at) as place
	from tasks t left join cells c on c.cell_id = t.cell_id and c.lost_at is null
	where t.state = $1::task_state and t.created_at <= $5::timestamptz
		or t.state = $2::task_state and c.cell_id is null
		or t.state = $3::task_state and (t.updated_at <= $6::timestamptz or t.first_completed_at <= $7::timestamptz)
		or t.state = $4::task_state and t.updated_at <= $6::timestamptz
)
select t.task_guid, t.domain, t.state::text, t.cell_id, t.created_at, t.updated_at, t.first_completed_at, t.rejection_count,
	case when t.updated_at <= $6::timestamptz and t.first_completed_at > $7::timestamptz then t.definition end
from due join tasks t using (task_guid)
where due.place <= $8::integer
order by t.task_guid

-- Everything below walks indexes in the order of their keys, side by side. Left alone, the planner
-- builds hash tables that do not fit into memory, and takes tables without statistics for empty ones.
-- name: walk_indexes
select set_config(name, 'off', true)
from unnest(array['enable_seqscan', 'enable_hashjoin', 'enable_hashagg', 'enable_sort', 'enable_bitmapscan']) as name

-- Processes whose ordinary records are not those of the indices 0 to instances - 1: as many records as
-- instances, and the last index below that, leave no other way, since no index has two. Two indexes
-- say so; what they find is looked at once more, so that what a stale domain keeps is not read again
-- with every comparison.
-- name: odd_processes
with odd as materialized (
	select coalesce(d.process_guid, a.process_guid) as process_guid, coalesce(d.instances, 0) as instances
	from desired_lrps d
	full join (
		select process_guid, count(*) as records, max(index) as last
		from actual_lrps where presence = $1::lrp_presence group by process_guid
	) a using (process_guid)
	where coalesce(d.instances, 0) <> coalesce(a.records, 0) or a.last >= coalesce(d.instances, 0)
)
select odd.process_guid
from odd
left join desired_lrps d on d.process_guid = odd.process_guid
cross join lateral (
	select count(*) filter (where a.index < odd.instances) as wanted,
		bool_or(a.index >= odd.instances and not a.retiring and exists (
			select from domains f where f.domain = coalesce(d.domain, a.domain) and (f.expires_at is null or f.expires_at > now()))) as surplus
	from actual_lrps a where a.process_guid = odd.process_guid and a.presence = $1::lrp_presence
) have
where have.wanted < odd.instances or have.surplus
order by odd.process_guid limit $2

-- Processes with a suspect or evacuating record that may go or return. $1 is ordinary, $2 suspect, $3
-- the state in which a replacement has won. Grace times and second witnesses are for Go.
-- name: odd_siblings
select distinct s.process_guid
from actual_lrps s
left join desired_lrps d on d.process_guid = s.process_guid
left join cells c on c.cell_id = s.cell_id
where s.presence <> $1::lrp_presence
	and (
		s.presence = $2::lrp_presence and (
			c.cell_id is not null and c.lost_at is null
			or exists (
				select from actual_lrps o
				where o.process_guid = s.process_guid and o.index = s.index and o.presence = $1::lrp_presence and o.state = $3::lrp_state))
		or s.presence <> $2::lrp_presence and (c.cell_id is null or c.lost_at is not null)
		or s.index >= coalesce(d.instances, 0) and (s.presence = $2::lrp_presence or not s.retiring) and exists (
			select from domains f where f.domain = coalesce(d.domain, s.domain) and (f.expires_at is null or f.expires_at > now())))
order by s.process_guid limit $4

-- Processes with an ordinary instance on a cell that is not there. The index gives each cell once. A cell
-- without any row is missed only while others are present.
-- name: processes_on_lost_cells
with recursive held (cell_id) as (
	(select cell_id from actual_lrps where cell_id <> '' order by cell_id limit 1)
	union all
	select (select a.cell_id from actual_lrps a where a.cell_id <> '' and a.cell_id > held.cell_id order by a.cell_id limit 1)
	from held where held.cell_id is not null
), lost as materialized (
	select held.cell_id
	from held left join cells c on c.cell_id = held.cell_id
	where held.cell_id is not null
		and (c.lost_at is not null or c.cell_id is null and exists (select from cells where lost_at is null))
)
select distinct a.process_guid
from lost
-- The offset keeps this a question for each lost cell: joined, all of the table would be read in order.
cross join lateral (
	select process_guid from actual_lrps
	where cell_id = lost.cell_id and cell_id <> '' and presence = $1::lrp_presence offset 0
) a
order by a.process_guid limit $2

-- Those that crashed and were not given up, the one that waits for longest first.
-- name: crashed_actuals
select process_guid, index, domain, crash_count, since
from actual_lrps
where cell_id = '' and presence = $1::lrp_presence and state = $2::lrp_state and crash_count < $3
order by since limit $4

-- What planning looks at, of whole processes.
-- name: read_desired_outlines
select process_guid, domain, instances from desired_lrps where process_guid = any($1::text[])

-- name: read_outlines
select process_guid, index, presence::text, domain, state::text, instance_guid, cell_id, crash_count, since, retiring
from actual_lrps where process_guid = any($1::text[])

-- The slots that have a record on some cells.
-- name: read_slots_on_cells
select distinct process_guid, index from actual_lrps where cell_id = any($1::text[]) and cell_id <> ''
