-- A record grows threefold from UNCLAIMED to RUNNING. With room for that on its page a start is an update in
-- place: no new page, and no new entries in the indexes. Pages that are full stay so until they are rewritten.
alter table actual_lrps set (fillfactor = 30);

---- create above / drop below ----

alter table actual_lrps set (fillfactor = 70);
