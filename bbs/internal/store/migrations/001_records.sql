-- Desired and actual state, domains, cells, and the log of every change.

create type lrp_state as enum ('UNCLAIMED', 'CLAIMED', 'RUNNING', 'CRASHED');
create type lrp_presence as enum ('ORDINARY', 'EVACUATING', 'SUSPECT');

create table desired_lrps (
	process_guid    text collate "C" primary key check (process_guid ~ '^[a-zA-Z0-9_-]{1,255}$'),
	domain          text not null check (domain <> ''),
	log_guid        text not null,
	instances       integer not null check (instances >= 0),
	annotation      text not null,
	-- Group to base64 of the group's JSON: it is kept byte for byte, which json columns do not do.
	routes          jsonb not null check (jsonb_typeof(routes) = 'object'),
	metric_tags     jsonb not null check (jsonb_typeof(metric_tags) = 'object'),
	root_fs         text not null check (root_fs <> ''),
	memory_mb       integer not null check (memory_mb >= 0),
	disk_mb         integer not null check (disk_mb >= 0),
	max_pids        integer not null check (max_pids >= 0),
	placement_tags  jsonb not null check (jsonb_typeof(placement_tags) = 'array'),
	volume_drivers  jsonb not null check (jsonb_typeof(volume_drivers) = 'array'),
	update_strategy smallint not null check (update_strategy in (0, 1)),
	tag_epoch       text not null check (tag_epoch <> ''),
	tag_index       bigint not null check (tag_index between 0 and 4294967295),
	-- The recipe, a bbs.v1.DesiredLRPRunInfo: only cells look into it.
	run_info        bytea not null
);
create index on desired_lrps (domain);

-- One row for each instance. The checks are the invariants of bbs/lrp, by number.
create table actual_lrps (
	process_guid          text collate "C" not null check (process_guid <> ''),
	index                 integer not null check (index >= 0),
	presence              lrp_presence not null,
	domain                text not null check (domain <> ''),
	state                 lrp_state not null,
	instance_guid         text not null,
	cell_id               text not null,
	address               text not null,
	instance_address      text not null,
	instance_ipv6_address text not null,
	preferred_address     smallint not null check (preferred_address in (0, 1, 2)),
	ports                 jsonb not null check (jsonb_typeof(ports) = 'array'),
	placement_error       text not null,
	crash_count           integer not null check (crash_count >= 0),
	crash_reason          text not null,
	since                 timestamptz not null,
	tag_epoch             text not null,
	tag_index             bigint not null check (tag_index between 0 and 4294967295),
	internal_routes       jsonb not null check (jsonb_typeof(internal_routes) = 'array'),
	metric_tags           jsonb not null check (jsonb_typeof(metric_tags) = 'object'),
	routable              boolean not null,
	availability_zone     text not null,
	retiring              boolean not null,
	primary key (process_guid, index, presence),

	constraint i1_since check (since > '0001-01-01 00:00:00+00'),
	constraint i2_idle_holds_nothing check (
		state in ('CLAIMED', 'RUNNING')
		or (instance_guid = '' and cell_id = '' and address = '' and instance_address = ''
			and instance_ipv6_address = '' and preferred_address = 0 and ports = '[]')),
	constraint i3_claimed check (
		state <> 'CLAIMED'
		or (instance_guid <> '' and cell_id <> '' and placement_error = '' and address = ''
			and instance_address = '' and instance_ipv6_address = '' and preferred_address = 0 and ports = '[]')),
	constraint i4_running check (
		state <> 'RUNNING'
		or (instance_guid <> '' and cell_id <> '' and address <> '' and placement_error = '')),
	constraint i5_retiring check (not retiring or state in ('CLAIMED', 'RUNNING')),
	constraint i6_idle_is_ordinary check (state in ('CLAIMED', 'RUNNING') or presence = 'ORDINARY')
) with (fillfactor = 70); -- room for updates in place
create index on actual_lrps (cell_id) where cell_id <> '';

create table domains (
	domain     text primary key check (domain <> ''),
	expires_at timestamptz -- null: never
);

create table cells (
	cell_id   text collate "C" primary key check (cell_id <> ''),
	presence  bytea not null, -- a bbs.v1.CellPresence
	ttl       interval not null check (ttl > interval '0'),
	last_seen timestamptz not null
) with (fillfactor = 50); -- every heartbeat updates its row in place

-- The next revision is taken from here as the last thing before a commit: the row stays locked until
-- then, so the order of revisions is the order of commits, and there are no gaps.
create table sequencer (
	only_row boolean primary key default true check (only_row),
	revision bigint not null check (revision >= 0)
) with (fillfactor = 10);
insert into sequencer (revision) values (0);

create table events (
	revision     bigint primary key check (revision > 0),
	committed_at timestamptz not null,
	batch        bigint not null, -- names the transaction: finds out whether an interrupted one committed
	trace_id     text not null,
	-- What watches filter by; empty where it does not apply.
	process_guid text not null,
	domain       text not null,
	cell_before  text not null,
	cell_after   text not null,
	payload      bytea not null -- a bbs.v1.Event without the columns above
);

---- create above / drop below ----

drop table events, sequencer, cells, domains, actual_lrps, desired_lrps;
drop type lrp_presence, lrp_state;
