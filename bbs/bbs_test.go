package bbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

func quiet() *slog.Logger {
	if os.Getenv("BBS_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// world is a certificate authority and a database, to run replicas on.
type world struct {
	t   testing.TB
	ca  *identity.CA
	url string
}

func newWorld(t testing.TB, url string) *world {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir())
	must(t, err)
	return &world{t: t, ca: ca, url: url}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// config returns the configuration of a replica on a free port.
func (w *world) config() *Config {
	w.t.Helper()
	files, err := w.ca.Issue(identity.ID{Role: identity.BBS})
	must(w.t, err)
	cfg := Defaults()
	cfg.TLS, cfg.ListenAddress, cfg.DebugAddress = files, "127.0.0.1:0", ""
	cfg.Encryption = Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	cfg.DatabaseURL = daemon.Secret(w.url)
	must(w.t, cfg.Validate())
	return cfg
}

// replica runs a replica until the test ends, or stop is called, and returns its address.
func (w *world) replica(cfg *Config) (address string, stop func()) {
	w.t.Helper()
	ready := make(chan net.Addr, 1)
	cfg.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, quiet(), cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the replica ended with %v", err)
		}
	})
	w.t.Cleanup(stop)
	select {
	case a := <-ready:
		return a.String(), stop
	case err := <-done:
		done <- nil
		w.t.Fatalf("the replica ended: %v", err)
		return "", nil
	}
}

// dial returns a connection of an identity.
func (w *world) dial(address string, id identity.ID) *grpc.ClientConn {
	w.t.Helper()
	files, err := w.ca.Issue(id)
	must(w.t, err)
	tls, err := files.Client(identity.BBS)
	must(w.t, err)
	conn, err := daemon.DialGRPC(address, tls)
	must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

func (w *world) client(address string, role identity.Role) *bbsclient.Client {
	return bbsclient.New(w.dial(address, identity.ID{Role: role}))
}

func (w *world) cell(address, cell string) *bbsclient.Client {
	return bbsclient.New(w.dial(address, identity.ID{Role: identity.Rep, Cell: cell}))
}

func app(process string, instances int32) lrp.Desired {
	return lrp.Desired{
		Process: lrp.ProcessGUID(process), Domain: "d", Instances: instances, RootFS: "docker://r/i#t", MemoryMB: 64,
		Routes:     map[string][]byte{"cf-router": []byte(`[{"hostnames":["a.example"],"port":8080}]`)},
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "s"}},
		RunInfo: lrp.RunInfo{
			Ports:         []uint32{8080},
			Action:        &lrp.Action{Run: &lrp.RunAction{Path: "/bin/app", User: "vcap"}},
			ImageUsername: "u", ImagePassword: "secret",
		},
	}
}

func key(process string, index int32) lrp.Key {
	return lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(process), Index: index}, Domain: "d"}
}

func claim(process string, index int32, by lrp.InstanceKey) lrp.Event {
	return lrp.Event{Name: lrp.Claim, Key: key(process, index), By: by}
}

func start(process string, index int32, by lrp.InstanceKey) lrp.Event {
	return lrp.Event{
		Name: lrp.Start, Key: key(process, index), By: by, Routable: true,
		NetInfo: lrp.NetInfo{Address: "10.0.0.1", InstanceAddress: "10.1.0.1", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61001}}},
	}
}

// follower collects what Follow tells.
type follower struct {
	mu     sync.Mutex
	lists  int
	events []bbsclient.Event
	more   chan struct{} // capacity 1
}

func (w *world) follow(c *bbsclient.Client, o bbsclient.FollowOptions) *follower {
	return w.followFrom(c, o, 0)
}

// followFrom is follow with a first list that claims to show a given revision, unless that is 0.
func (w *world) followFrom(c *bbsclient.Client, o bbsclient.FollowOptions, first uint64) *follower {
	f := &follower{more: make(chan struct{}, 1)}
	ping := func() {
		select {
		case f.more <- struct{}{}:
		default:
		}
	}
	o.Log = quiet()
	o.List = func(ctx context.Context) (uint64, error) {
		_, revision, err := c.Actuals(ctx, bbsclient.ActualFilter{Cell: o.Filter.Cell})
		if err == nil {
			f.mu.Lock()
			f.lists++
			if f.lists == 1 && first != 0 {
				revision = first
			}
			f.mu.Unlock()
			ping()
		}
		return revision, err
	}
	o.Apply = func(evs []bbsclient.Event) {
		f.mu.Lock()
		f.events = append(f.events, evs...)
		f.mu.Unlock()
		ping()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Follow(ctx, o) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return f
}

// seen returns the lists that were made and the changes that were told so far.
func (f *follower) seen() (lists int, events []bbsclient.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lists, slices.Clone(f.events)
}

// until waits until what the follower has satisfies a condition.
func (f *follower) until(t testing.TB, what string, done func(f *follower) bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		ok := done(f)
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-f.more:
		case <-limit:
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Fatalf("%s: not after %d lists and %d events", what, f.lists, len(f.events))
		}
	}
}

func TestLifeThroughTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client, rep := w.client(address, identity.Client), w.cell(address, "c1")
	ctx := bbsclient.WithTraceID(t.Context(), "req-1")

	all := w.follow(w.client(address, identity.Auctioneer), bbsclient.FollowOptions{})
	all.until(t, "first list", func(f *follower) bool { return f.lists == 1 })
	mine := w.follow(rep, bbsclient.FollowOptions{Filter: bbsclient.WatchFilter{Cell: "c1"}})
	mine.until(t, "first list", func(f *follower) bool { return f.lists == 1 })

	must(t, rep.Heartbeat(ctx, cells.Presence{Cell: "c1", RepURL: "https://127.0.0.1:1801", Zone: "z1"}, 5*time.Second))
	must(t, client.UpsertDomain(ctx, "d", 0))
	must(t, client.Desire(ctx, app("p", 2)))
	d, err := rep.Desired(ctx, "p") // before it claims
	must(t, err)
	if d.RunInfo.ImagePassword != "secret" {
		t.Errorf("the cell gets image password %q, want it", d.RunInfo.ImagePassword)
	}
	if d, err := client.Desired(ctx, "p"); err != nil || d.RunInfo.ImagePassword != "" {
		t.Errorf("the client gets image password %q (%v), want none", d.RunInfo.ImagePassword, err)
	}
	by := lrp.InstanceKey{Instance: "i1", Cell: "c1"}
	must(t, rep.Apply(ctx, claim("p", 0, by)))
	must(t, rep.Apply(ctx, start("p", 0, by)))
	var refusal *lrp.Refusal
	if err := rep.Apply(ctx, claim("p", 0, lrp.InstanceKey{Instance: "i2", Cell: "c1"})); !errors.As(err, &refusal) ||
		refusal.Why != lrp.CannotBeClaimed || refusal.Held != by || refusal.From != lrp.Running {
		t.Errorf("second claim: %v, want the refusal with who holds the slot", err)
	}
	var invalid *lrp.Invalid
	if err := client.Desire(ctx, lrp.Desired{Process: "a b"}); !errors.As(err, &invalid) || len(invalid.Fields) < 3 {
		t.Errorf("nonsense desired: %v, want every field named", err)
	}
	none := int32(0)
	must(t, client.Update(ctx, "p", lrp.Update{Instances: &none}))
	mine.until(t, "the cell learns that its instance retires", func(f *follower) bool {
		n := len(f.events)
		return n > 0 && f.events[n-1].Actual != nil && f.events[n-1].Actual.After != nil && f.events[n-1].Actual.After.Retiring
	})
	must(t, rep.Apply(ctx, lrp.Event{Name: lrp.Remove, Key: key("p", 0), By: by}))
	must(t, client.RemoveDesired(ctx, "p"))
	all.until(t, "removal is announced", func(f *follower) bool {
		n := len(f.events)
		return n > 0 && f.events[n-1].Desired != nil && f.events[n-1].Desired.After == nil
	})
	_, everything := all.seen()
	for i, ev := range everything {
		if ev.Revision != uint64(i)+1 || ev.TraceID != "req-1" {
			t.Errorf("event %d: revision %d, trace %q; want all of them, in order, with the trace of their calls", i, ev.Revision, ev.TraceID)
		}
	}
	if first := everything[0].Cell; first == nil || first.After == nil || first.After.Zone != "z1" {
		t.Errorf("first event is %+v, want the new cell", everything[0])
	}
	_, own := mine.seen()
	for _, ev := range own {
		if ev.Actual == nil || (ev.Actual.Before == nil || ev.Actual.Before.Cell != "c1") && (ev.Actual.After == nil || ev.Actual.After.Cell != "c1") {
			t.Errorf("the cell was told of %+v, which is not about it", ev)
		}
	}
}

func TestNotReadyIsUnavailable(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	url := pgtest.DatabaseOn(t, c, nil)
	must(t, c.Stop(t.Context()))
	w := newWorld(t, url)
	cfg := w.config()
	l, err := net.Listen("tcp", "127.0.0.1:0") // an address that is known before the replica is ready
	must(t, err)
	cfg.ListenAddress = l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, quiet(), cfg) }()
	t.Cleanup(func() { cancel(); <-done })
	conn := w.dial(cfg.ListenAddress, identity.ID{Role: identity.Client})
	_, _, err = bbsclient.New(conn).Domains(t.Context())
	if !bbsclient.IsUnavailable(err) {
		t.Errorf("without a database: %v, want unavailable", err)
	}
	res, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	must(t, err)
	if res.Status != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health without a database: %v", res.Status)
	}
	if _, err := bbsclient.New(conn).Watch(t.Context(), 0, bbsclient.WatchFilter{}); err != nil {
		t.Fatal(err)
	}
}

func TestOutOfRangeMakesFollowersListAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client := w.client(address, identity.Client)
	for i := range 3 {
		must(t, client.Desire(t.Context(), app(fmt.Sprint("p", i), 1)))
	}
	conn, err := pgx.Connect(t.Context(), w.url)
	must(t, err)
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "delete from events where revision < 5"); err != nil {
		t.Fatal(err)
	}
	// Another replica knows only what is in the table.
	other, _ := w.replica(w.config())
	watch, err := w.client(other, identity.Client).Watch(t.Context(), 1, bbsclient.WatchFilter{})
	must(t, err)
	if _, _, err := watch.Recv(); status.Code(err) != codes.OutOfRange {
		t.Errorf("watch from a pruned revision: %v, want %v", err, codes.OutOfRange)
	}
	watch, err = w.client(other, identity.Client).Watch(t.Context(), 1000, bbsclient.WatchFilter{})
	must(t, err)
	if _, _, err := watch.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("watch from a future revision: %v, want %v", err, codes.InvalidArgument)
	}

	// A consumer whose list is older than the log lists again and then goes on.
	f := w.followFrom(w.client(other, identity.Client), bbsclient.FollowOptions{}, 1)
	f.until(t, "a second list", func(f *follower) bool { return f.lists >= 2 })
	must(t, client.Desire(t.Context(), app("later", 1)))
	f.until(t, "the change after it", func(f *follower) bool {
		return len(f.events) > 0 && f.events[len(f.events)-1].Actual != nil
	})
	if _, events := f.seen(); events[0].Desired == nil || events[0].Desired.After.Process != "later" {
		t.Errorf("first event is %+v, want the first change after the second list", events[0])
	}
}
