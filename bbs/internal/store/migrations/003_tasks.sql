-- Tasks, and what makes calls safe to repeat: request ids and fencing tokens.

create type task_state as enum ('PENDING', 'RUNNING', 'COMPLETED', 'RESOLVING');

-- The checks are the invariants of bbs/task, by number; T2 is the type of the state.
create table tasks (
	task_guid          text collate "C" primary key check (length(task_guid) between 1 and 255 and task_guid !~ '[^a-zA-Z0-9_-]'),
	domain             text not null check (domain <> ''),
	state              task_state not null,
	cell_id            text not null,
	created_at         timestamptz not null,
	updated_at         timestamptz not null,
	first_completed_at timestamptz, -- null: not completed yet
	result             text not null,
	failed             boolean not null,
	failure_reason     text not null,
	rejection_count    integer not null,
	rejection_reason   text not null,
	definition         bytea not null, -- a bbs.v1.TaskDefinition, sealed

	constraint t1_times check (created_at > '0001-01-01 00:00:00+00' and updated_at >= created_at),
	constraint t3_cell check ((state = 'RUNNING') = (cell_id <> '')),
	constraint t4_completed check (
		(state in ('COMPLETED', 'RESOLVING')) = (first_completed_at is not null)
		and (first_completed_at is null or first_completed_at <= updated_at)),
	constraint t5_failed check (not failed or state in ('COMPLETED', 'RESOLVING')),
	constraint t6_result check (result = '' or (state in ('COMPLETED', 'RESOLVING') and not failed)),
	constraint t7_reason check (failure_reason = '' or failed),
	constraint t8_rejections check (rejection_count >= 0 and (rejection_reason = '' or rejection_count > 0))
) with (fillfactor = 70); -- room for updates in place
create index on tasks (cell_id) where cell_id <> '';
create index on tasks (domain);

-- What creating calls have done, for those that are repeated because their answer got lost.
create table requests (
	request_id text collate "C" not null check (request_id <> ''),
	item       integer not null check (item >= 0), -- of a bulk call
	digest     bytea not null check (octet_length(digest) = 32),
	at         timestamptz not null,
	primary key (request_id, item)
);
create index on requests (at);

-- The newest token of each lease under which something was written.
create table fences (
	lease text collate "C" primary key check (lease <> ''),
	token bigint not null check (token > 0)
);

---- create above / drop below ----

drop table fences, requests, tasks;
drop type task_state;
