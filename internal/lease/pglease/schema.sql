create schema if not exists muster_lease;

create table if not exists muster_lease.leases (
	name       text   primary key,
	holder     text   not null,
	token      bigint not null check (token > 0),
	expires_at timestamptz -- null: it was given back
);
