-- Routes, recipes, addresses and tags become sealed blobs. SQL has no key, so what is there becomes
-- plain ones for now: a byte 0 and the JSON of what the column holds (of what was bytea already, the
-- bytes). Each replica reads those too, and the first one that starts seals them.

alter table desired_lrps
	drop constraint desired_lrps_routes_check,
	drop constraint desired_lrps_metric_tags_check,
	drop constraint desired_lrps_volume_drivers_check,
	drop constraint desired_lrps_update_strategy_check; -- one that nobody knows yet is kept
alter table desired_lrps
	alter column update_strategy type integer,
	alter column routes type bytea using
		case routes when '{}' then '' else '\x00'::bytea || convert_to(routes::text, 'UTF8') end,
	alter column metric_tags type bytea using
		case metric_tags when '{}' then '' else '\x00'::bytea || convert_to(metric_tags::text, 'UTF8') end,
	alter column volume_drivers type bytea using
		case volume_drivers when '[]' then '' else '\x00'::bytea || convert_to(volume_drivers::text, 'UTF8') end,
	alter column run_info type bytea using '\x00'::bytea || run_info,
	-- What is sealed cannot be compressed.
	alter column routes set storage external,
	alter column metric_tags set storage external,
	alter column volume_drivers set storage external,
	alter column run_info set storage external;

alter table actual_lrps
	drop constraint actual_lrps_ports_check,
	drop constraint actual_lrps_preferred_address_check,
	drop constraint actual_lrps_internal_routes_check,
	drop constraint actual_lrps_metric_tags_check,
	drop constraint i2_idle_holds_nothing,
	drop constraint i3_claimed,
	drop constraint i4_running,
	alter column ports drop not null;
alter table actual_lrps
	alter column ports type bytea using case
		when address <> '' or instance_address <> '' or instance_ipv6_address <> '' or preferred_address <> 0 or ports <> '[]'
		then '\x00'::bytea || convert_to(jsonb_build_object('Address', address, 'InstanceAddress', instance_address,
			'InstanceIPv6Address', instance_ipv6_address, 'Preferred', preferred_address, 'Ports', ports)::text, 'UTF8')
		end,
	alter column metric_tags type bytea using case
		when internal_routes <> '[]' or metric_tags <> '{}'
		then '\x00'::bytea || convert_to(jsonb_build_object('InternalRoutes', internal_routes, 'MetricTags', metric_tags)::text, 'UTF8')
		else ''
		end;
alter table actual_lrps
	drop column address,
	drop column instance_address,
	drop column instance_ipv6_address,
	drop column preferred_address,
	drop column internal_routes;
alter table actual_lrps rename column ports to net_info; -- null: there is nowhere to reach it
alter table actual_lrps rename column metric_tags to reported;
alter table actual_lrps
	alter column net_info set storage external,
	alter column reported set storage external,
	add constraint i2_idle_holds_nothing check (
		state in ('CLAIMED', 'RUNNING') or (instance_guid = '' and cell_id = '' and net_info is null)),
	add constraint i3_claimed check (
		state <> 'CLAIMED' or (instance_guid <> '' and cell_id <> '' and placement_error = '' and net_info is null)),
	add constraint i4_running check (
		state <> 'RUNNING' or (instance_guid <> '' and cell_id <> '' and placement_error = '' and net_info is not null));

alter table events alter column payload type bytea using '\x00'::bytea || payload;
alter table events alter column payload set storage external;

-- The keys that values are, or may be, sealed with. Plain values have the empty label.
create table encryption (
	label      text collate "C" primary key check (octet_length(label) <= 127),
	canary     bytea not null, -- sealed with the key: tells whether a passphrase is the right one
	-- The label with the greatest number was made the active one last: all values are to get it.
	generation bigint not null unique check (generation >= 0),
	closed_at  timestamptz, -- since then nothing more is sealed with it
	retired_at timestamptz check (retired_at is null or closed_at is not null) -- since then nothing is: its key can go
);
insert into encryption (label, canary, generation, closed_at) values ('', '', 0, now());
