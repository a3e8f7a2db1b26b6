package store

import (
	"testing"
)

// BenchmarkCompareQuiet compares 250,000 instances of as many processes, which need nothing, on 1,000
// cells. One instance for each process is the most expensive case.
func BenchmarkCompareQuiet(b *testing.B) {
	s := fresh(b)
	ctx := b.Context()
	for _, sql := range []string{
		`insert into desired_lrps (process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs, memory_mb,
			disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, run_info)
			select md5(i::text) || '-' || i, 'd', '', 1, '', '', '', 'r', 0, 0, 0, '[]', '', 0, 'e', 0, convert_to(repeat('x', 1500), 'UTF8')
			from generate_series(1, 250000) i`,
		`insert into actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info, placement_error,
			crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable, availability_zone, retiring)
			select md5(i::text) || '-' || i, 0, 'ORDINARY', 'd', 'RUNNING', md5(i::text), 'cell-' || i % 1000,
				convert_to(repeat('x', 200), 'UTF8'), '', 0, '', now(), 'e', 0, convert_to(repeat('x', 500), 'UTF8'), true, '', false
			from generate_series(1, 250000) i`,
		"insert into cells (cell_id, presence, ttl, last_seen) select 'cell-' || i, '', '1 min', now() from generate_series(0, 999) i",
		"insert into domains values ('d', null)",
		"vacuum (analyze)",
	} {
		_, err := s.Pools.Read.Exec(ctx, sql)
		must(b, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		found, err := s.Compare(ctx, grace)
		must(b, err)
		if len(found.Groups) != 0 || found.Counts.Desired != 250_000 {
			b.Fatalf("selected %d slots, counted %+v", len(found.Groups), found.Counts)
		}
	}
}
