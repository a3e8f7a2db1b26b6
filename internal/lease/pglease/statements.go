package pglease

// The only clock is the database's: clock_timestamp(), read once the row is locked.
const (
	// acquire takes a lease that nobody has. The row of a lease is never deleted: it remembers the token.
	// A row that appears between the look and the insert makes the insert an update, under the row's lock.
	acquire = `
insert into muster_lease.leases as l (name, holder, token, expires_at)
values ($1, $2, $3, clock_timestamp() + $4::bigint * interval '1 microsecond')
on conflict (name) do update
	set holder = excluded.holder, token = greatest(l.token + 1, $5), expires_at = clock_timestamp() + $4::bigint * interval '1 microsecond'
	where l.expires_at is null or l.expires_at <= clock_timestamp()
returning token`

	// renew is refused once somebody else had the lease, or it was given back. One that merely ran out, and
	// that nobody wanted, is as good as ever.
	renew = `
update muster_lease.leases set expires_at = clock_timestamp() + $3::bigint * interval '1 microsecond'
where name = $1 and token = $2 and expires_at is not null`

	// release tells those who wait.
	release = `
with freed as (
	update muster_lease.leases set expires_at = null where name = $1 and token = $2 and expires_at is not null returning name
)
select pg_notify('muster_lease', name) from freed`

	// remaining is how long the lease still lasts, in microseconds.
	remaining = `
select coalesce((extract(epoch from expires_at - clock_timestamp()) * 1000000)::bigint, 0) from muster_lease.leases where name = $1`
)
