-- Cells that fell silent leave a tombstone, and the full comparison gets indexes of its own. None of
-- these covers a column that a claim or a start changes for itself, so updates in place stay that.

-- When the cell was found to be silent; null: it is present.
alter table cells add column lost_at timestamptz;

-- What is desired, next to the primary key of actual_lrps: compared without touching a table.
create index desired_lrps_wanted on desired_lrps (process_guid) include (instances);
-- The evacuating and suspect ones: few as a rule.
create index actual_lrps_siblings on actual_lrps (process_guid, index) where presence <> 'ORDINARY';
-- Those that wait for a place or for a back-off.
create index actual_lrps_vacant on actual_lrps (process_guid, index) where cell_id = '';

---- create above / drop below ----

drop index actual_lrps_vacant, actual_lrps_siblings, desired_lrps_wanted;
alter table cells drop column lost_at;
