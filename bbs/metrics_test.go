package bbs

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/internal/store"
	"muster/bbs/task"
)

// described returns what a registry has, as the table of docs/metrics.md writes it: names to labels.
func described(r *prometheus.Registry) map[string]string {
	parts := regexp.MustCompile(`fqName: "([^"]+)", .*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	all := map[string]string{}
	descs := make(chan *prometheus.Desc)
	go func() { defer close(descs); r.Describe(descs) }()
	for d := range descs {
		m := parts.FindStringSubmatch(d.String())
		if m == nil || strings.HasPrefix(m[1], "go_") || strings.HasPrefix(m[1], "process_") {
			continue
		}
		var labels []string
		for _, l := range strings.Split(m[2]+","+m[3], ",") {
			if name, _, _ := strings.Cut(l, "="); name != "" {
				labels = append(labels, name)
			}
		}
		all[m[1]] = strings.Join(labels, ", ")
	}
	return all
}

// docs/metrics.md has every metric, with its labels and its type, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	m := newMetrics(r.hub)
	m.watchPools(r.store.Pools)
	m.watchStore(r.store)
	page, err := os.ReadFile("../docs/metrics.md")
	must(t, err)
	rows := regexp.MustCompile("(?m)^\\| `(bbs_[a-z_]+)` \\| (\\w+) \\| ([a-z_, ]*)\\| ([^|]+) \\| ([^|]+) \\|$")
	documented, types := map[string]string{}, map[string]string{}
	for _, row := range rows.FindAllStringSubmatch(string(page), -1) {
		documented[row[1]], types[row[1]] = strings.TrimSpace(row[3]), row[2]
	}
	if diff := cmp.Diff(described(m.registry), documented); diff != "" {
		t.Errorf("metrics and their labels (-registered +documented):\n%s", diff)
	}
	families, err := m.registry.Gather()
	must(t, err)
	for _, f := range families {
		if want, ours := types[f.GetName()]; ours && want != strings.ToLower(f.GetType().String()) {
			t.Errorf("%s is a %s, and documented as a %s", f.GetName(), f.GetType(), want)
		}
	}
	for name, kind := range types {
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s: counters, and only those, end in _total", name, kind)
		}
	}
}

// What the leader showed goes with its term: two replicas must not both show how many instances there are.
func TestLeaderTakesItsGaugesBack(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	r.running("p", "c")
	c := r.converger(1)
	if _, err := c.compare(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown := []string{"bbs_lrps RUNNING", "bbs_lrps_desired", "bbs_cells present", "bbs_tasks pending"}
	for _, name := range shown[:3] {
		if n, ok := metric(t, c.metrics, name); !ok || n != 1 {
			t.Errorf("while it leads, %s is %v (%v), want 1", name, n, ok)
		}
	}
	over, end := context.WithCancel(t.Context())
	end()
	c.run(over)
	for _, name := range shown {
		if n, _ := metric(t, c.metrics, name); n != 0 {
			t.Errorf("after its term, %s is %v", name, n)
		}
	}
}

// Each task is counted once when it starts and once when it ends, for the cell that ran it.
func TestTasksAreCounted(t *testing.T) {
	t.Parallel()
	r := newRecords(t)
	c := r.converger(1)
	ctx := t.Context()
	for guid, events := range map[task.GUID][]task.Event{
		"good": {{Name: task.Start, Cell: "a"}, {Name: task.Complete, Cell: "a", Result: "r"}, {Name: task.Resolve}, {Name: task.Delete}},
		"bad":  {{Name: task.Start, Cell: "a"}, {Name: task.Complete, Cell: "a", Failed: true, Reason: "r"}},
		"off":  {{Name: task.Cancel}},
		"runs": {{Name: task.Start, Cell: "b"}},
	} {
		must(t, r.store.DesireTask(ctx, echoTask(string(guid)), store.Call{}))
		for _, ev := range events {
			ev.GUID = guid
			_, err := r.store.ApplyTask(ctx, ev, store.Call{})
			must(t, err)
		}
	}
	records, _, err := r.store.Events(ctx, 0, 100)
	must(t, err)
	for i := range records {
		c.see([]*store.Record{&records[i]}, nil)
	}
	got := map[string]float64{}
	families, err := c.metrics.registry.Gather()
	must(t, err)
	for _, f := range families {
		if !slices.Contains([]string{"bbs_tasks_started_total", "bbs_tasks_succeeded_total", "bbs_tasks_failed_total"}, f.GetName()) {
			continue
		}
		for _, one := range f.GetMetric() {
			got[f.GetName()+" "+one.GetLabel()[0].GetValue()] = one.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"bbs_tasks_started_total a": 2, "bbs_tasks_started_total b": 1, "bbs_tasks_succeeded_total a": 1, "bbs_tasks_failed_total a": 1,
		"bbs_tasks_failed_total ": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
}
