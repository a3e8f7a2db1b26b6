package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/bbs/event"
	"muster/bbs/internal/seal"
	"muster/bbs/lrp"
	"muster/internal/pgtest"
)

// quiet is the logger of tests.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// sealer returns a Sealer that knows some labels and seals with the first one. Each passphrase is made
// of its label.
func sealer(t testing.TB, labels ...string) *seal.Sealer {
	t.Helper()
	keys := map[string]string{}
	for _, l := range labels {
		keys[l] = "passphrase of " + l
	}
	s, err := seal.New(labels[0], keys)
	must(t, err)
	return s
}

// open returns a running store on a database.
func open(t testing.TB, url string, o Options) *Store {
	t.Helper()
	pools, err := OpenPools(context.Background(), url, 8)
	must(t, err)
	return run(t, pools, o)
}

// run returns a running store on some connections.
func run(t testing.TB, pools Pools, o Options) *Store {
	t.Helper()
	o.Pools, o.Log = pools, quiet()
	if o.Sealer == nil {
		o.Sealer = sealer(t, "k")
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; pools.Close() })
	return s
}

// fresh returns a running store on a fresh database.
func fresh(t testing.TB) *Store {
	t.Helper()
	return open(t, pgtest.Database(t, Migrate), Options{})
}

// app is a DesiredLRP that passes validation.
func app(process string, instances int32) lrp.Desired {
	return lrp.Desired{
		Process: lrp.ProcessGUID(process), Domain: "d", Instances: instances, RootFS: "docker://r/i#t",
		Routes:     map[string][]byte{"cf-router": []byte(`[{"hostnames": ["a.example"],  "port":8080}]`)},
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "s"}},
		RunInfo:    lrp.RunInfo{Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/app", User: "vcap"}}},
	}
}

func slotKey(process string, index int32) lrp.Key {
	return lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(process), Index: index}, Domain: "d"}
}

func claim(process string, index int32, by lrp.InstanceKey) lrp.Event {
	return lrp.Event{Name: lrp.Claim, Key: slotKey(process, index), By: by}
}

func start(process string, index int32, by lrp.InstanceKey) lrp.Event {
	return lrp.Event{
		Name: lrp.Start, Key: slotKey(process, index), By: by, Routable: true,
		NetInfo: lrp.NetInfo{Address: "10.0.0.1", InstanceAddress: "10.1.0.1", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61001}}},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// history reads the whole log.
func history(t testing.TB, s *Store) []event.Event {
	t.Helper()
	var all []event.Event
	for after := uint64(0); ; {
		records, newest, err := s.Events(t.Context(), after, 100)
		must(t, err)
		for _, r := range records {
			if r.Revision != after+1 {
				t.Fatalf("revision %d follows %d: the log has a gap", r.Revision, after)
			}
			after = r.Revision
			all = append(all, r.Event())
		}
		if after == newest {
			return all
		}
	}
}

func TestLifeOfAProcess(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx := t.Context()
	want := app("p", 2)
	must(t, s.Desire(ctx, want, Call{TraceID: "trace-1"}))

	var refusal *lrp.Refusal
	if err := s.Desire(ctx, want, Call{}); !errors.As(err, &refusal) || refusal.Why != lrp.Exists {
		t.Errorf("desired twice: %v, want a refusal with %s", err, lrp.Exists)
	}
	list, at, err := s.Desired(ctx, DesiredFilter{Processes: []lrp.ProcessGUID{"p"}}, Page{})
	must(t, err)
	if at.Revision != 3 || len(list) != 1 {
		t.Fatalf("after desiring 2 instances: revision %d and %d records, want 3 (one event each) and 1", at.Revision, len(list))
	}
	got := list[0]
	if got.Tag.Epoch == "" || got.Tag.Index != 0 || got.RunInfo.CreatedAt.IsZero() {
		t.Errorf("server-made members are missing: tag %v, created %v", got.Tag, got.RunInfo.CreatedAt)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(lrp.Desired{}, "Tag", "RunInfo.CreatedAt")); diff != "" {
		t.Errorf("read back (-desired +read):\n%s", diff)
	}

	a := lrp.InstanceKey{Instance: "i", Cell: "c"}
	must(t, s.Apply(ctx, claim("p", 0, a), Call{}))
	must(t, s.Apply(ctx, start("p", 0, a), Call{}))
	before, err := s.Revision(ctx)
	must(t, err)
	must(t, s.Apply(ctx, start("p", 0, a), Call{}))
	if after, err := s.Revision(ctx); err != nil || after != before {
		t.Errorf("a repeated start went from revision %d to %d (%v), want nothing written", before, after, err)
	}
	if err := s.Apply(ctx, claim("p", 0, lrp.InstanceKey{Instance: "j", Cell: "d"}), Call{}); !errors.As(err, &refusal) || refusal.Held != a {
		t.Errorf("claim of a held slot: %v, want a refusal that names %v", err, a)
	}

	one := int32(1)
	must(t, s.Update(ctx, "p", lrp.Update{Instances: &one}, Call{}))
	must(t, s.Update(ctx, "p", lrp.Update{Instances: &one}, Call{})) // changes nothing
	must(t, s.RemoveDesired(ctx, "p", Call{}))
	actuals, _, err := s.Actuals(ctx, ActualFilter{}, Page{})
	must(t, err)
	if len(actuals) != 1 || !actuals[0].Retiring || actuals[0].State != lrp.Running {
		t.Errorf("after removal: %+v, want the running instance retiring and nothing else", actuals)
	}
	checkReplay(t, s)
	must(t, s.Apply(ctx, lrp.Event{Name: lrp.Remove, Key: slotKey("p", 0), By: a}, Call{}))
	if err := s.RemoveDesired(ctx, "p", Call{}); !errors.As(err, &refusal) || refusal.Why != lrp.NotFound {
		t.Errorf("removed twice: %v, want a refusal with %s", err, lrp.NotFound)
	}
	checkReplay(t, s)
	if log := history(t, s); log[0].TraceID != "trace-1" || log[0].At.IsZero() {
		t.Errorf("first event has trace %q and time %v, want those of its call", log[0].TraceID, log[0].At)
	}
}

func TestRevisionsHaveNoGapsAcrossReplicas(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, Migrate)
	replicas := []*Store{open(t, url, Options{}), open(t, url, Options{})}
	const processes, callers = 8, 16
	for i := range processes {
		must(t, replicas[0].Desire(t.Context(), app(fmt.Sprint("p", i), 4), Call{}))
	}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			s := replicas[c%len(replicas)]
			for i := range processes * 4 {
				p, index := fmt.Sprint("p", (i+c)%processes), int32(i%4)
				by := lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", c, i)), Cell: lrp.CellID(fmt.Sprint("c", c))}
				for _, ev := range []lrp.Event{claim(p, index, by), start(p, index, by), {Name: lrp.Crash, Key: slotKey(p, index), By: by, Reason: "r"}} {
					var refusal *lrp.Refusal
					if err := s.Apply(t.Context(), ev, Call{}); err != nil && !errors.As(err, &refusal) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	checkReplay(t, replicas[1]) // reads the log without gaps, and every event's past
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, nil)
	var wg sync.WaitGroup
	for range 3 { // replicas that start at once
		wg.Go(func() {
			if err := Migrate(context.Background(), url); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, Migrate(t.Context(), url))
	s := open(t, url, Options{})
	must(t, s.Desire(t.Context(), app("p", 1), Call{}))
	must(t, Migrate(t.Context(), url))
	if _, at, err := s.Actuals(t.Context(), ActualFilter{}, Page{}); err != nil || at.Revision != 2 {
		t.Errorf("after another migration: revision %d, %v; want 2", at.Revision, err)
	}
}

func TestDomains(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	must(t, s.UpsertDomain(t.Context(), "ever", 0))
	must(t, s.UpsertDomain(t.Context(), "long", time.Hour))
	must(t, s.UpsertDomain(t.Context(), "stale", time.Hour))
	if _, err := s.Pools.Read.Exec(t.Context(), "update domains set expires_at = now() - interval '1 second' where domain = 'stale'"); err != nil {
		t.Fatal(err)
	}
	got, _, err := s.Domains(t.Context())
	must(t, err)
	if diff := cmp.Diff([]lrp.Domain{"ever", "long"}, got); diff != "" {
		t.Errorf("fresh domains (-want +got):\n%s", diff)
	}
}
