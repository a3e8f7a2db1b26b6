-- The same rule as before, said so that PostgreSQL need not count up to 255 with a regular expression:
-- that was a third of its work for a desire.
alter table desired_lrps
	drop constraint desired_lrps_process_guid_check,
	add constraint desired_lrps_process_guid_check
		check (length(process_guid) between 1 and 255 and process_guid !~ '[^a-zA-Z0-9_-]');

---- create above / drop below ----

alter table desired_lrps
	drop constraint desired_lrps_process_guid_check,
	add constraint desired_lrps_process_guid_check check (process_guid ~ '^[a-zA-Z0-9_-]{1,255}$');
