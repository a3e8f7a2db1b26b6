package rep_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/inmem"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/rep"
	"muster/rep/repclient"
)

// patience is how long a test waits for something that has to happen.
const patience = 20 * time.Second

// world is a real BBS, a host with containers of functions, and the rep of one cell.
type world struct {
	t      *testing.T
	ca     *identity.CA
	dir    string
	link   *link       // from the rep to the BBS
	direct string      // address of the BBS
	host   *inmem.Host // survives the rep
	app    *app        // what runs in the containers
	bbs    *bbsclient.Client
	seen   *observer
	config func(*rep.Config) // what a test changes
	// ctx bounds every call of a test, so that a hang fails with the line that hangs.
	ctx context.Context
}

func newWorld(t *testing.T, config func(*rep.Config)) *world {
	t.Helper()
	dir := t.TempDir()
	ca, err := identity.OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, ca: ca, dir: dir, app: newApp(), config: config}
	for _, id := range []identity.ID{
		{Role: identity.BBS}, {Role: identity.Auctioneer}, {Role: identity.Operator}, {Role: identity.Client},
		{Role: identity.Rep, Cell: "z1"}, {Role: identity.Rep, Cell: "z2"},
	} {
		if _, err := ca.Issue(id); err != nil {
			t.Fatal(err)
		}
	}
	w.host = inmem.NewHost(map[string]inmem.Image{"docker:///app": {Programs: map[string]inmem.Program{"/app": w.app.run, "/probe": runProbe}, Users: []string{"vcap"}}})
	w.direct = startBBS(t, identity.FilesOf(dir, identity.ID{Role: identity.BBS}))
	w.link = newLink(t, w.direct)
	w.bbs = bbsclient.New(w.dial(w.direct, identity.ID{Role: identity.Operator}, identity.BBS))
	w.seen = observe(t, w.bbs)
	return w
}

func (w *world) dial(address string, as identity.ID, to identity.Role) *grpc.ClientConn {
	w.t.Helper()
	c, err := identity.FilesOf(w.dir, as).Client(to)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := daemon.DialGRPC(address, c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// cell is one life of the rep of cell z1.
type cell struct {
	w       *world
	address string
	stop    func() // ends it and waits
}

func (w *world) startRep() *cell {
	w.t.Helper()
	cfg := rep.Defaults()
	cfg.DebugAddress = ""
	cfg.TLS = identity.FilesOf(w.dir, identity.ID{Role: identity.Rep, Cell: "z1"})
	cfg.CellID, cfg.Zone = "z1", "zone-1"
	cfg.ListenAddress, cfg.ExternalAddress, cfg.BBSAddress = "127.0.0.1:0", "192.0.2.7", w.link.address
	cfg.MemoryMB, cfg.DiskMB, cfg.MaxContainers = "1024", "4096", 10
	cfg.GracefulInterval = daemon.Duration(200 * time.Millisecond)
	cfg.CheckInterval = daemon.Duration(100 * time.Millisecond)
	cfg.Downloads.Dir, cfg.MountedFilesDir = filepath.Join(w.dir, "downloads"), filepath.Join(w.dir, "mounted-files")
	cfg.Engine, cfg.Dial = w.host.Engine(), w.app.dial
	if w.config != nil {
		w.config(cfg)
	}
	if err := cfg.Validate(); err != nil {
		w.t.Fatal(err)
	}
	ready := make(chan net.Addr, 1)
	cfg.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() { done <- rep.Run(ctx, log, cfg) }()
	c := &cell{w: w, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("rep ended: %v", err)
		}
	})}
	w.t.Cleanup(c.stop)
	select {
	case a := <-ready:
		c.address = a.String()
	case err := <-done:
		done <- err
		w.t.Fatalf("rep did not start: %v", err)
	case <-time.After(patience):
		w.t.Fatal("rep did not start")
	}
	return c
}

func (c *cell) as(role identity.Role) *repclient.Client {
	c.w.t.Helper()
	return repclient.New(c.w.dial(c.address, identity.ID{Role: role}, identity.Rep))
}

// perform gives one slot to the cell, as the auctioneer does, and returns why it was refused.
func (c *cell) perform(d lrp.Desired, index int32) string {
	c.w.t.Helper()
	refused, err := c.as(identity.Auctioneer).Perform(c.w.ctx, "z1", []cells.Instance{instanceOf(d, index)}, nil)
	if err != nil {
		c.w.t.Fatal(err)
	}
	if len(refused) > 0 {
		return refused[0].Reason
	}
	return ""
}

func instanceOf(d lrp.Desired, index int32) cells.Instance {
	return cells.Instance{
		Key:       lrp.Key{Slot: lrp.Slot{Process: d.Process, Index: index}, Domain: d.Domain},
		Resources: cells.Resources{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, Containers: 1}, RootFS: d.RootFS,
	}
}

// untilState waits for a state of the cell.
func (c *cell) untilState(what string, want func(cells.State) bool) cells.State {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(c.w.ctx, patience)
	defer cancel()
	var last cells.State
	found := false
	err := c.as(identity.Auctioneer).WatchState(ctx, func(s cells.State) {
		if last = s; want(s) {
			found = true
			cancel()
		}
	})
	if !found {
		c.w.t.Fatalf("never seen: %s; last state %+v (%v)", what, last, err)
	}
	return last
}

// desire makes the BBS want an LRP and waits until its slots are there.
func (w *world) desire(d lrp.Desired) lrp.Desired {
	w.t.Helper()
	if err := w.bbs.Desire(w.ctx, d); err != nil {
		w.t.Fatal(err)
	}
	for i := range d.Instances {
		w.seen.until(w.t, "unclaimed slot", func() bool { return w.seen.state(d.Process, i) == lrp.Unclaimed })
	}
	return d
}

func desired(process lrp.ProcessGUID, instances int32, change func(*lrp.Desired)) lrp.Desired {
	d := lrp.Desired{
		Process: process, Domain: "tests", Instances: instances, RootFS: "docker:///app", MemoryMB: 100, DiskMB: 100,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: string(process)}},
		RunInfo: lrp.RunInfo{
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "/app", User: "vcap"}},
			Ports:  []uint32{8080}, LogSource: "APP",
		},
	}
	if change != nil {
		change(&d)
	}
	return d
}

// observer knows all ActualLRPs and all crashes that the BBS told of.
type observer struct {
	mu      sync.Mutex
	actuals map[lrp.Slot]lrp.Actual
	crashes []lrp.CrashReport
	changed chan struct{}
}

func observe(t *testing.T, client *bbsclient.Client) *observer {
	o := &observer{actuals: map[lrp.Slot]lrp.Actual{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = client.Follow(ctx, bbsclient.FollowOptions{ // ends with ctx
			Log: slog.New(slog.DiscardHandler),
			List: func(ctx context.Context) (uint64, error) {
				list, revision, err := client.Actuals(ctx, bbsclient.ActualFilter{})
				o.change(func() {
					o.actuals = map[lrp.Slot]lrp.Actual{}
					for _, a := range list {
						o.actuals[a.Slot] = a
					}
				})
				return revision, err
			},
			Apply: func(events []bbsclient.Event) {
				o.change(func() {
					for _, ev := range events {
						o.apply(ev)
					}
				})
			},
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return o
}

func (o *observer) apply(ev bbsclient.Event) {
	if ev.Crash != nil {
		o.crashes = append(o.crashes, *ev.Crash)
	}
	switch {
	case ev.Actual == nil:
	case ev.Actual.After != nil:
		o.actuals[ev.Actual.After.Slot] = *ev.Actual.After
	default:
		delete(o.actuals, ev.Actual.Before.Slot)
	}
}

func (o *observer) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.changed)
	o.changed = make(chan struct{})
}

// until waits until something is so; want may call the getters below.
func (o *observer) until(t *testing.T, what string, want func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		o.mu.Lock()
		changed := o.changed
		o.mu.Unlock()
		if want() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			o.mu.Lock()
			defer o.mu.Unlock()
			t.Fatalf("never seen: %s; actual LRPs %+v, crashes %+v", what, o.actuals, o.crashes)
		}
	}
}

func (o *observer) actual(p lrp.ProcessGUID, index int32) (lrp.Actual, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a, ok := o.actuals[lrp.Slot{Process: p, Index: index}]
	return a, ok
}

func (o *observer) state(p lrp.ProcessGUID, index int32) lrp.State {
	a, _ := o.actual(p, index)
	return a.State
}

func (o *observer) crashReports() []lrp.CrashReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]lrp.CrashReport(nil), o.crashes...)
}

// running waits for a RUNNING slot and returns its record.
func (w *world) running(p lrp.ProcessGUID, index int32) lrp.Actual {
	w.t.Helper()
	w.seen.until(w.t, "a running instance", func() bool { return w.seen.state(p, index) == lrp.Running })
	a, _ := w.seen.actual(p, index)
	return a
}

// crashed waits for the nth crash and returns it.
func (w *world) crashed(n int) lrp.CrashReport {
	w.t.Helper()
	w.seen.until(w.t, "a crash", func() bool { return len(w.seen.crashReports()) >= n })
	return w.seen.crashReports()[n-1]
}

// link forwards connections, and can be cut.
type link struct {
	address, to string
	mu          sync.Mutex
	cut         bool
	conns       map[net.Conn]bool
}

func newLink(t *testing.T, to string) *link {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{address: l.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { k.forward(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); k.setCut(true); wg.Wait() })
	return k
}

func (k *link) forward(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer to.Close()
	k.mu.Lock()
	cut := k.cut
	k.conns[from], k.conns[to] = true, true
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.conns, from)
		delete(k.conns, to)
		k.mu.Unlock()
	}()
	if cut {
		return
	}
	done := make(chan struct{}, 2)
	pipe := func(a, b net.Conn) {
		_, _ = io.Copy(a, b) // ends with either connection
		a.Close()
		b.Close()
		done <- struct{}{}
	}
	go pipe(from, to)
	go pipe(to, from)
	<-done
	<-done
}

// setCut cuts all connections and refuses new ones, or lets them through again.
func (k *link) setCut(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	if cut {
		for c := range k.conns {
			c.Close()
		}
	}
}
