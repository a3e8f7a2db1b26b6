package store

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"muster/bbs/converge"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

const grace = 15 * time.Second

// narrowWorld is a random world as rows: what the full comparison may meet, and more.
type narrowWorld struct {
	desired []converge.Desired
	actuals []lrp.Actual
	cells   map[lrp.CellID]time.Duration // how long they have been lost; 0: present
	domains map[lrp.Domain]bool          // fresh or not
}

func anyNarrowWorld(t *rapid.T) narrowWorld {
	w := narrowWorld{cells: map[lrp.CellID]time.Duration{}, domains: map[lrp.Domain]bool{}}
	ids := []lrp.CellID{"c0", "c1", "c2", "c3"}
	for _, id := range ids[:3] { // c3 was forgotten, or never there
		if rapid.Bool().Draw(t, "has a row") {
			w.cells[id] = rapid.SampledFrom([]time.Duration{0, 0, time.Second, time.Minute}).Draw(t, "lost for")
		}
	}
	for _, d := range []lrp.Domain{"d", "e"} {
		if rapid.Bool().Draw(t, "has a row") {
			w.domains[d] = rapid.Bool().Draw(t, "fresh")
		}
	}
	domain := rapid.SampledFrom([]lrp.Domain{"d", "e", "f"})
	quiet := rapid.Float64Range(0, 1).Draw(t, "how quiet") // else all worlds need everything
	for p := range 5 {
		process := lrp.ProcessGUID(fmt.Sprintf("p%d", p))
		instances := rapid.Int32Range(-1, 3).Draw(t, "instances")
		if instances >= 0 {
			w.desired = append(w.desired, converge.Desired{Process: process, Domain: domain.Draw(t, "domain"), Instances: instances})
		}
		plain := rapid.Float64Range(0, 1).Draw(t, "plain") < quiet
		for index := range int32(4) {
			key := lrp.Key{Slot: lrp.Slot{Process: process, Index: index}, Domain: domain.Draw(t, "domain of a record")}
			for _, presence := range []lrp.Presence{lrp.Ordinary, lrp.Evacuating, lrp.Suspect} {
				there := rapid.IntRange(0, 3).Draw(t, "there") == 0
				if plain || presence == lrp.Ordinary && rapid.Bool().Draw(t, "as it should be") {
					there = presence == lrp.Ordinary && index < instances
				}
				if there {
					w.actuals = append(w.actuals, anyOutline(t, key, presence, ids))
				}
			}
		}
	}
	return w
}

func anyOutline(t *rapid.T, key lrp.Key, presence lrp.Presence, ids []lrp.CellID) lrp.Actual {
	a := lrp.Actual{Key: key, Presence: presence, Since: time.Now().UTC().Truncate(time.Microsecond)}
	states := []lrp.State{lrp.Running, lrp.Claimed}
	if presence == lrp.Ordinary {
		states = append(states, lrp.Unclaimed, lrp.Crashed)
	}
	switch a.State = rapid.SampledFrom(states).Draw(t, "state"); a.State {
	case lrp.Running, lrp.Claimed:
		a.InstanceKey = lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprintf("i%d", presence)), Cell: rapid.SampledFrom(ids).Draw(t, "cell")}
		a.Retiring = rapid.IntRange(0, 3).Draw(t, "retiring") == 0
	case lrp.Crashed:
		a.CrashCount = rapid.SampledFrom([]int32{3, 4, lrp.MaxRestarts}).Draw(t, "crashes")
		a.Since = a.Since.Add(-rapid.SampledFrom([]time.Duration{0, 45 * time.Second, time.Hour}).Draw(t, "waited"))
	}
	return a
}

// put makes the database hold a world and nothing else.
func (w narrowWorld) put(ctx context.Context, s *Store) error {
	var pb pgx.Batch
	pb.Queue("truncate desired_lrps, actual_lrps, cells, domains")
	for _, d := range w.desired {
		pb.Queue(`insert into desired_lrps (process_guid, domain, log_guid, instances, annotation, routes, metric_tags, root_fs, memory_mb,
			disk_mb, max_pids, placement_tags, volume_drivers, update_strategy, tag_epoch, tag_index, run_info)
			values ($1, $2, '', $3, '', '', '', 'r', 0, 0, 0, '[]', '', 0, 'e', 0, '')`, d.Process, d.Domain, d.Instances)
	}
	for _, a := range w.actuals {
		var net []byte
		if a.State == lrp.Running {
			net = []byte{1}
		}
		pb.Queue(`insert into actual_lrps (process_guid, index, presence, domain, state, instance_guid, cell_id, net_info, placement_error,
			crash_count, crash_reason, since, tag_epoch, tag_index, reported, routable, availability_zone, retiring)
			values ($1, $2, $3, $4, $5, $6, $7, $8, '', $9, '', $10, 'e', 0, '', false, '', $11)`,
			a.Process, a.Index, presenceName(a.Presence), a.Domain, string(a.State), a.Instance, a.Cell, net, a.CrashCount, a.Since, a.Retiring)
	}
	for id, lost := range w.cells {
		pb.Queue(`insert into cells (cell_id, presence, ttl, last_seen, lost_at)
			values ($1, '', '1 s', now(), case when $2::bigint > 0 then clock_timestamp() - $2 * interval '1 millisecond' end)`, id, lost.Milliseconds())
	}
	for d, fresh := range w.domains {
		pb.Queue("insert into domains values ($1, now() + case when $2 then interval '1 hour' else interval '-1 hour' end)", d, fresh)
	}
	return s.Pools.Read.SendBatch(ctx, &pb).Close()
}

// steps are a plan, to be compared.
func stepTexts(steps []converge.Step) (all []string) {
	for _, s := range steps {
		all = append(all, fmt.Sprintf("%s %v %v: %s", s.Event.Name, s.Event.Key, s.Event.By, s.Why))
	}
	return all
}

// Narrowing: the plan for what the queries select is the plan for everything, and what they select is
// not everything.
func TestNarrowing(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	left, needy := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := anyNarrowWorld(t)
		if err := w.put(ctx, s); err != nil {
			t.Fatal(err)
		}
		found, err := s.Compare(ctx, grace)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		found.Cells.Since = now.Add(-time.Hour)
		everything := found.Snapshot
		everything.Desired, everything.Groups = w.desired, Groups(w.actuals)
		want := stepTexts(converge.Plan(everything, now))
		if diff := cmp.Diff(want, stepTexts(converge.Plan(found.Snapshot, now))); diff != "" {
			t.Fatalf("steps for everything, and for what was selected (-want +got):\n%s", diff)
		}
		for _, step := range converge.Plan(everything, now) {
			if !slices.ContainsFunc(found.Groups, func(g lrp.Group) bool { return groupProcess(g) == step.Event.Key.Process }) &&
				!slices.ContainsFunc(found.Desired, func(d converge.Desired) bool { return d.Process == step.Event.Key.Process }) {
				t.Fatalf("%s was not selected", step.Event.Key.Process)
			}
		}
		needy += len(want)
		left += len(w.actuals)
		for _, g := range found.Groups {
			for _, a := range []*lrp.Actual{g.Ordinary, g.Evacuating, g.Suspect} {
				if a != nil {
					left--
				}
			}
		}
	})
	if left == 0 || needy == 0 {
		t.Errorf("%d records were left out and %d steps planned: the worlds say nothing", left, needy)
	}
}

func groupProcess(g lrp.Group) lrp.ProcessGUID {
	for _, a := range []*lrp.Actual{g.Ordinary, g.Evacuating, g.Suspect} {
		if a != nil {
			return a.Process
		}
	}
	return ""
}

// A quiet world selects nothing, but is counted.
func TestCompareQuiet(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	w := narrowWorld{cells: map[lrp.CellID]time.Duration{"c": 0}, domains: map[lrp.Domain]bool{"d": true}}
	for p, state := range []lrp.State{lrp.Running, lrp.Running, lrp.Claimed, lrp.Unclaimed, lrp.Crashed} {
		process := lrp.ProcessGUID(fmt.Sprintf("p%d", p))
		w.desired = append(w.desired, converge.Desired{Process: process, Domain: "d", Instances: 1})
		a := lrp.Actual{Key: lrp.Key{Slot: lrp.Slot{Process: process}, Domain: "d"}, State: state, Since: time.Now().UTC().Truncate(time.Microsecond)}
		if state == lrp.Running || state == lrp.Claimed {
			a.InstanceKey = lrp.InstanceKey{Instance: "i", Cell: "c"}
		}
		if state == lrp.Crashed {
			a.CrashCount = 3
		}
		w.actuals = append(w.actuals, a)
	}
	must(t, w.put(ctx, s))
	found, err := s.Compare(ctx, grace)
	must(t, err)
	if len(found.Groups) != 0 || len(found.Desired) != 0 {
		t.Errorf("selected %v and %v, want nothing", found.Desired, found.Groups)
	}
	want := Counts{Processes: 5, Desired: 5, Actuals: map[ActualKind]int64{
		{State: lrp.Running}: 2, {State: lrp.Claimed}: 1, {State: lrp.Unclaimed}: 1, {State: lrp.Crashed}: 1,
	}, Tasks: map[task.State]int64{}}
	if diff := cmp.Diff(want, found.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	crashed := w.actuals[4:]
	if diff := cmp.Diff(crashed, found.Crashed, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("crashed (-want +got):\n%s", diff)
	}
}
