package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

const (
	statV1 = "cache 1\nrss 2\ninactive_file 3\ntotal_cache 5000\ntotal_rss 700\ntotal_rss_huge 99\ntotal_swap 30\ntotal_inactive_file 4000\ntotal_active_file 11\n"
	statV2 = "anon 700\nfile 5000\nkernel 88\nkernel_stack 77\nswapcached 30\nanon_thp 66\nfile_mapped 55\ninactive_anon 44\ninactive_file 4000\n"
	cpuV2  = "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 0\n"
)

// Both kinds of cgroups are read as the kernel writes them, and what Diego counts is counted.
func TestAccounts(t *testing.T) {
	t.Parallel()
	want := engine.Usage{CPU: 1500 * time.Millisecond, MemoryBytes: 1730, Pids: 12}
	v1 := map[string]string{"memory/a/b/memory.stat": statV1, "cpuacct/a/b/cpuacct.usage": "1500000000\n", "pids/a/b/pids.current": "12\n"}
	v2 := map[string]string{"a/b/memory.stat": statV2, "a/b/cpu.stat": cpuV2, "a/b/pids.current": "12\n"}
	for _, row := range []struct {
		name    string
		unified bool
		files   map[string]string
		want    engine.Usage
		err     string // "": none, "gone": fs.ErrNotExist
	}{
		{"v1", false, v1, want, ""},
		{"v2", true, v2, want, ""},
		{"v1: read while files became inactive", false, with(v1, "memory/a/b/memory.stat", "total_cache 5\ntotal_inactive_file 9\n"), engine.Usage{CPU: want.CPU, Pids: 12}, ""},
		{"v2: a kernel without swapcached", true, with(v2, "a/b/memory.stat", "anon 7\nfile 5\ninactive_file 4\n"), engine.Usage{CPU: want.CPU, MemoryBytes: 8, Pids: 12}, ""},
		{"v1: no such cgroup", false, nil, engine.Usage{}, "gone"},
		{"v2: no such cgroup", true, nil, engine.Usage{}, "gone"},
		{"v1: half gone", false, with(v1, "cpuacct/a/b/cpuacct.usage", ""), engine.Usage{}, "gone"},
		{"v2: half gone", true, with(v2, "a/b/pids.current", ""), engine.Usage{}, "gone"},
		{"v1: no number", false, with(v1, "pids/a/b/pids.current", "max\n"), engine.Usage{}, `pids.current: strconv.ParseInt: parsing "max": invalid syntax`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := accounts{root: t.TempDir(), unified: row.unified}
			for name, text := range row.files {
				check(t, os.MkdirAll(filepath.Dir(filepath.Join(a.root, name)), 0o755))
				check(t, os.WriteFile(filepath.Join(a.root, name), []byte(text), 0o644))
			}
			got, err := a.of("/a/b")
			switch {
			case row.err == "gone" && errors.Is(err, fs.ErrNotExist):
			case row.err != "" && err != nil && err.Error() == row.err:
			case row.err != "" || err != nil || got != row.want:
				t.Errorf("got %+v, %v; want %+v, %q", got, err, row.want, row.err)
			}
		})
	}
}

// with returns files with another content of one; none: it is not there.
func with(files map[string]string, name, text string) map[string]string {
	changed := map[string]string{}
	for n, t := range files {
		changed[n] = t
	}
	if changed[name] = text; text == "" {
		delete(changed, name)
	}
	return changed
}

// The disk is looked at beside everything else, and what is gone is forgotten.
func TestDisksAreWatched(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	e.diskEvery = 10 * time.Millisecond
	spec := probeSpec("writer", s.archive(t, "app.tar", appConfig), "hold", "8", "/tmp/held")
	startReady(t, e, spec)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var u engine.Usage
	poll(t, func() bool {
		all, err := e.Usage(t.Context(), spec.ID)
		check(t, err)
		u = all[spec.ID]
		return !u.DiskAt.IsZero()
	})
	if u.DiskBytes < 8<<20 || u.DiskBytes > 9<<20 || time.Since(u.DiskAt) > time.Minute {
		t.Errorf("8 MiB were written: %+v", u)
	}
	check(t, e.Destroy(t.Context(), spec.ID))
	poll(t, func() bool { return e.disks.of(spec.ID) == layer{} })
	stop()
	check(t, <-done)
}

// BenchmarkUsage reads the accounts of 100 cgroups and logs; ns/op is for all of them. The kernel's part is that of real
// containers: it does not depend on what runs in a cgroup.
func BenchmarkUsage(b *testing.B) {
	e := &Engine{cfg: Config{CgroupParent: fmt.Sprintf("/muster-bench/usage-%d", os.Getpid())}, paths: paths{b.TempDir()}}
	b.Cleanup(func() { check(b, errors.Join(removeCgroups(e.cfg.CgroupParent), removeCgroupIfEmpty("/muster-bench"))) })
	roots, err := cgroupRoots()
	check(b, err)
	var ids []engine.ID
	for n := range 100 {
		id := engine.ID(fmt.Sprint("c-", n))
		ids = append(ids, id)
		for _, root := range roots {
			check(b, os.MkdirAll(filepath.Join(root, e.cgroup(id)), 0o755))
		}
		check(b, os.MkdirAll(e.paths.container(id), 0o755))
		check(b, os.WriteFile(e.paths.file(id, logFile), []byte("a line\n"), 0o644))
	}
	var before, after unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &before))
	for b.Loop() {
		all, err := e.Usage(b.Context(), ids...)
		check(b, err)
		if len(all) != len(ids) {
			b.Fatalf("%d of %d are told", len(all), len(ids))
		}
	}
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &after))
	cpu := after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N)/1e6, "cpu-ms/op")
}
