package emitter

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"muster/bbs"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/natsserver"
	"muster/internal/pgtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// background runs a daemon until the end of the test.
func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("daemon ended: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// TestDaemon follows one process through a BBS to what a router hears, over mutual TLS everywhere:
// before and after the emitter starts, through an update, a scale down, a retiring instance, a cell that is
// drained, whose route stays until another is there (bbs reference §19 "evacuation"), and the removal.
func TestDaemon(t *testing.T) {
	t.Parallel()
	ctx, log := t.Context(), slog.New(slog.NewTextHandler(io.Discard, nil))
	ca, err := identity.OpenCA(t.TempDir())
	must(t, err)
	issue := func(id identity.ID) identity.Files {
		f, err := ca.Issue(id)
		must(t, err)
		return f
	}

	bc := bbs.Defaults()
	bc.TLS, bc.ListenAddress, bc.DebugAddress = issue(identity.ID{Role: identity.BBS}), "127.0.0.1:0", ""
	bc.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	bc.DatabaseURL = daemon.Secret(pgtest.Database(t, nil))
	ready := make(chan net.Addr, 1)
	bc.Ready = func(a net.Addr) { ready <- a }
	background(t, func(ctx context.Context) error { return bbs.Run(ctx, log, bc) })
	address := (<-ready).String()
	client := func(id identity.ID) *bbsclient.Client {
		tls, err := issue(id).Client(identity.BBS)
		must(t, err)
		conn, err := daemon.DialGRPC(address, tls)
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		return bbsclient.New(conn)
	}

	// TLS at NATS; the listener of the test speaks as a router.
	serverTLS, err := issue(identity.ID{Role: identity.NATS}).Server(identity.RouteEmitter, identity.Gorouter)
	must(t, err)
	url, stop, err := natsserver.Start("127.0.0.1:0", serverTLS)
	must(t, err)
	t.Cleanup(stop)
	_, natsAddress, _ := strings.Cut(url, "://")
	routerTLS, err := issue(identity.ID{Role: identity.Gorouter}).Client(identity.NATS)
	must(t, err)
	l := listen(t, "tls://"+natsAddress, routerTLS)

	operator, cell := client(identity.ID{Role: identity.Operator}), client(identity.ID{Role: identity.Rep, Cell: "c"})
	app := lrp.Desired{
		Process: "p", Domain: "d", LogGUID: "log", Instances: 2, RootFS: "docker:///app#v1", MemoryMB: 1, DiskMB: 1,
		Routes:     map[string][]byte{"cf-router": []byte(`[{"hostnames":["a.example"],"port":8080}]`)},
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "s"}},
		RunInfo:    lrp.RunInfo{Action: &lrp.Action{Run: &lrp.RunAction{Path: "/app", User: "u"}}, Ports: []uint32{8080}},
	}
	must(t, operator.Desire(ctx, app))
	by := []lrp.InstanceKey{{Instance: "i0", Cell: "c"}, {Instance: "i1", Cell: "c"}}
	begin := func(index int32) {
		t.Helper()
		must(t, cell.Apply(ctx, lrp.Event{
			Name: lrp.Start, Key: lrp.Key{Slot: lrp.Slot{Process: "p", Index: index}, Domain: "d"}, By: by[index], Routable: true,
			NetInfo: netInfo(uint32(index)),
		}))
	}
	begin(0) // runs before there is an emitter

	ec := Defaults()
	ec.TLS, ec.BBSAddress, ec.DebugAddress = issue(identity.ID{Role: identity.RouteEmitter}), address, ""
	ec.NATSAddresses = []string{natsAddress}
	must(t, ec.Validate())
	background(t, func(ctx context.Context) error { return Run(ctx, log, ec) })

	l.expect("register 10.0.0.1:60000 a.example i0")
	began := time.Now()
	begin(1)
	called := time.Now()
	l.expect("register 10.0.0.1:60001 a.example i1")
	t.Logf("from the start call to the router: %v, of which the call %v", time.Since(began), called.Sub(began))

	must(t, operator.Update(ctx, "p", lrp.Update{Routes: map[string][]byte{"cf-router": []byte(`[{"hostnames":["a.example","b.example"],"port":8080}]`)}}))
	l.expect("register 10.0.0.1:60000 b.example i0")
	l.expect("register 10.0.0.1:60001 b.example i1")
	one := int32(1)
	must(t, operator.Update(ctx, "p", lrp.Update{Instances: &one}))
	l.expect("unregister 10.0.0.1:60001 a.example,b.example i1")
	must(t, cell.Apply(ctx, lrp.Event{Name: lrp.Crash, Key: lrp.Key{Slot: lrp.Slot{Process: "p"}, Domain: "d"}, By: by[0], Reason: "boom"}))
	l.expect("unregister 10.0.0.1:60000 a.example,b.example i0")
	begin(0)
	l.expect("register 10.0.0.1:60000 a.example,b.example i0")

	// The cell is drained: its endpoint stays until the other one is there.
	key := lrp.Key{Slot: lrp.Slot{Process: "p"}, Domain: "d"}
	drain := func(want bool) {
		t.Helper()
		keep, err := cell.Evacuate(ctx, lrp.Event{Name: lrp.EvacuateRunning, Key: key, By: by[0], Routable: true, NetInfo: netInfo(0)})
		if err != nil || keep != want {
			t.Errorf("keep %v (%v), want %v", keep, err, want)
		}
	}
	drain(true)
	must(t, client(identity.ID{Role: identity.Rep, Cell: "c2"}).Apply(ctx, lrp.Event{
		Name: lrp.Start, Key: key, By: lrp.InstanceKey{Instance: "i2", Cell: "c2"}, Routable: true, NetInfo: netInfo(2),
	}))
	l.expect("register 10.0.0.1:60002 a.example,b.example i2")
	drain(false)
	l.expect("unregister 10.0.0.1:60000 a.example,b.example i0")
	must(t, operator.RemoveDesired(ctx, "p"))
	l.expect("unregister 10.0.0.1:60002 a.example,b.example i2")
}

func netInfo(n uint32) lrp.NetInfo {
	return lrp.NetInfo{Address: "10.0.0.1", InstanceAddress: "172.16.0.1", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 60000 + n}}}
}
