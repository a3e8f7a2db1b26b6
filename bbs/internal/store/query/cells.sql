-- The cells. One that fell silent keeps its row, as a tombstone that says since when; for the writer
-- it is as if it was not there.

-- A cell that is past its time, by the clock of the database, says so.
-- name: read_cells
select cell_id, presence, (extract(epoch from ttl) * 1000)::bigint, last_seen + ttl < clock_timestamp()
from cells where cell_id = any($1::text[]) and lost_at is null

-- name: upsert_cells
insert into cells (cell_id, presence, ttl, last_seen)
select cell_id, presence, ttl_ms * interval '1 millisecond', clock_timestamp()
from unnest($1::text[], $2::bytea[], $3::bigint[]) as new (cell_id, presence, ttl_ms)
on conflict (cell_id) do update
set presence = excluded.presence, ttl = excluded.ttl, last_seen = excluded.last_seen, lost_at = null

-- name: touch_cells
update cells as c set last_seen = clock_timestamp(), ttl = new.ttl_ms * interval '1 millisecond'
from unnest($1::text[], $2::bigint[]) as new (cell_id, ttl_ms)
where c.cell_id = new.cell_id

-- name: lose_cells
update cells set lost_at = clock_timestamp() where cell_id = any($1::text[])

-- A time to live that is longer than this replica has been able to hear heartbeats says nothing yet.
-- name: overdue_cells
select cell_id from cells
where lost_at is null and last_seen + ttl < clock_timestamp() and ttl <= $1::bigint * interval '1 millisecond'

-- name: list_cells
select presence from cells where lost_at is null order by cell_id

-- Ages, not times: the clocks of the database and of its clients differ.
-- name: read_presences
select cell_id, (extract(epoch from clock_timestamp() - lost_at) * 1000000)::bigint from cells

-- name: forget_cells
delete from cells c
where lost_at < clock_timestamp() - $1::bigint * interval '1 millisecond'
	and not exists (select from actual_lrps a where a.cell_id = c.cell_id and a.cell_id <> '')
	and not exists (select from tasks t where t.cell_id = c.cell_id and t.cell_id <> '')
