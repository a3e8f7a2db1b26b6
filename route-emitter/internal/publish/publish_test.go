package publish

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"muster/internal/identity"
	"muster/internal/natsserver"
	"muster/internal/natstest"
	"muster/route-emitter/table"
)

// patience bounds the wait for something that has to happen.
const patience = 20 * time.Second

func address(url string) string {
	_, a, _ := strings.Cut(url, "://")
	return a
}

// connect connects and runs; broadcasts arrive on the channel.
func connect(t *testing.T, o Options) (*Conn, chan struct{}) {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	c, err := Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	broadcasts, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx, func() { broadcasts <- struct{}{} }); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done; c.Close() })
	return c, broadcasts
}

func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("not reached")
	}
}

// router is a NATS client that plays a router.
func router(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, chan *nats.Msg) {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	heard := make(chan *nats.Msg, 1000)
	if _, err := nc.ChanSubscribe("router.>", heard); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return nc, heard
}

// next returns the next message on a subject; others are passed over.
func next(t *testing.T, heard <-chan *nats.Msg, subject string) *nats.Msg {
	t.Helper()
	for {
		if m := wait(t, heard, subject); m.Subject == subject {
			return m
		}
	}
}

func message(kind table.Kind, uri string) table.Message {
	return table.Message{Kind: kind, Body: table.Registration{Host: "10.0.0.1", Port: 80, URIs: []string{uri}}}
}

func TestGreeting(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t)
	nc, heard := router(t, url)
	c, broadcasts := connect(t, Options{Addresses: []string{address(url)}})
	greet := next(t, heard, "router.greet")
	if len(greet.Data) != 0 || greet.Reply == "" {
		t.Errorf("greeting %q with reply %q", greet.Data, greet.Reply)
	}
	wait(t, broadcasts, "broadcast on connecting")
	if err := nc.Publish(greet.Reply, []byte("nonsense")); err != nil { // ignored
		t.Fatal(err)
	}
	if m := next(t, heard, "router.greet"); m.Reply != greet.Reply { // nobody answered yet: again
		t.Errorf("reply %q", m.Reply)
	}
	if err := nc.Publish(greet.Reply, []byte(`{"id":"r","hosts":["h"],"minimumRegisterIntervalInSeconds":0,"pruneThresholdInSeconds":120}`)); err != nil {
		t.Fatal(err)
	}
	wait(t, broadcasts, "broadcast in the interval") // 0 is clamped to a second
	wait(t, broadcasts, "broadcast in the interval")
	if !c.greeted.Load() {
		t.Error("not greeted")
	}
}

func TestStartingRouterIsAnswered(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t)
	nc, heard := router(t, url)
	_, broadcasts := connect(t, Options{Addresses: []string{address(url)}, Jitter: 0.001})
	wait(t, broadcasts, "broadcast on connecting")
	next(t, heard, "router.greet")
	began := time.Now()
	if err := nc.Publish("router.start", []byte(`{"minimumRegisterIntervalInSeconds":600}`)); err != nil {
		t.Fatal(err)
	}
	wait(t, broadcasts, "broadcast to a router that started")
	if took := time.Since(began); took > DefaultInterval/2 {
		t.Errorf("took %v", took)
	}
}

// TestManyStartsPutNothingOff lets a router start every second for ten hours: everything must be said all
// the same, as often as routers ask for it, and those that start must not wait longer because of the others.
func TestManyStartsPutNothingOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &Conn{
			Options: Options{Jitter: 1, Log: slog.New(slog.NewTextHandler(io.Discard, nil))},
			answers: make(chan answer), connected: make(chan struct{}),
		}
		c.greeted.Store(true)
		var said []time.Time
		done := make(chan error)
		go func() { done <- c.Run(ctx, func() { said = append(said, time.Now()) }) }()
		last := time.Now()
		const seconds = 10 * 60 * 60
		for range seconds {
			c.answers <- answer{interval: DefaultInterval}
			<-time.After(time.Second) // of the bubble's clock
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, at := range append(said, time.Now()) {
			if gap := at.Sub(last); gap > DefaultInterval {
				t.Fatalf("nothing was said for %v, want at most %v", gap, DefaultInterval)
			}
			last = at
		}
		// Half the interval is the mean wait of a router that starts; were each start to draw anew, it would be
		// 0.63 of it, and were none answered together, no time at all.
		if mean := seconds * time.Second / time.Duration(len(said)); mean < DefaultInterval*48/100 || mean > DefaultInterval*58/100 {
			t.Errorf("said every %v, want every %v or a little more", mean, DefaultInterval/2)
		}
	})
}

// TestRefusedIsNotForEver has a server that refuses who connects, as one with wrong settings does.
func TestRefusedIsNotForEver(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked := make(chan struct{}, 100)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(nc, "INFO {\"auth_required\":true,\"max_payload\":1024}\r\n")
			bufio.NewReader(nc).ReadString('\n') // CONNECT
			asked <- struct{}{}
			io.WriteString(nc, "-ERR 'Authorization Violation'\r\n")
			nc.Close()
		}
	}()
	connect(t, Options{Addresses: []string{l.Addr().String()}})
	for range 4 {
		wait(t, asked, "further attempt")
	}
}

func TestOrderIsKept(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t)
	_, heard := router(t, url)
	c, broadcasts := connect(t, Options{Addresses: []string{address(url)}})
	wait(t, broadcasts, "connection")
	const n = 500
	var ms []table.Message
	for i := range n {
		kind := table.Register
		if i%2 == 0 {
			kind = table.Unregister
		}
		ms = append(ms, message(kind, "a.example"))
	}
	if err := c.Publish(ms); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		m := wait(t, heard, "message")
		for m.Subject == "router.greet" {
			m = wait(t, heard, "message")
		}
		if m.Subject != string(ms[i].Kind) {
			t.Fatalf("message %d is %s", i, m.Subject)
		}
	}
}

// TestLatency measures from the call to the arrival at a router: messages must not wait for a buffer.
func TestLatency(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t)
	_, heard := router(t, url)
	c, broadcasts := connect(t, Options{Addresses: []string{address(url)}})
	wait(t, broadcasts, "connection")
	best := time.Hour
	for range 20 {
		began := time.Now()
		if err := c.Publish([]table.Message{message(table.Register, "a.example")}); err != nil {
			t.Fatal(err)
		}
		next(t, heard, "router.register")
		best = min(best, time.Since(began))
	}
	t.Logf("best of 20: %v", best)
	if best > 50*time.Millisecond {
		t.Errorf("a message takes %v", best)
	}
}

func TestReconnects(t *testing.T) {
	t.Parallel()
	url, stop, err := natsserver.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, broadcasts := connect(t, Options{Addresses: []string{address(url)}})
	wait(t, broadcasts, "broadcast on connecting")
	stop()
	for change := c.nc.StatusChanged(nats.RECONNECTING); c.nc.Status() != nats.RECONNECTING; {
		wait(t, change, "notice of the outage")
	}
	if err := c.Publish([]table.Message{message(table.Unregister, "old.example")}); err == nil {
		t.Error("publishing without NATS is no error")
	}
	_, stop, err = natsserver.Start(address(url), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	_, heard := router(t, url)
	wait(t, broadcasts, "broadcast on connecting again")
	if err := c.Publish([]table.Message{message(table.Register, "new.example")}); err != nil {
		t.Fatal(err)
	}
	for {
		m := wait(t, heard, "message")
		if m.Subject == "router.unregister" {
			t.Fatalf("what was said before the outage arrives after it: %s", m.Data)
		}
		if m.Subject != "router.register" {
			continue
		}
		var b table.Registration
		if err := json.Unmarshal(m.Data, &b); err != nil || b.URIs[0] != "new.example" {
			t.Errorf("%s %v", m.Data, err)
		}
		return
	}
}

func TestStartsWithoutNATS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := l.Addr().String()
	l.Close()
	c, broadcasts := connect(t, Options{Addresses: []string{a}})
	if c.Connected() {
		t.Error("connected to nothing")
	}
	_, stop, err := natsserver.Start(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	wait(t, broadcasts, "broadcast once NATS is there")
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca, err := identity.OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(role identity.Role) identity.Files {
		f, err := ca.Issue(identity.ID{Role: role})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	emitter := issue(identity.RouteEmitter)
	client, err := emitter.Client(identity.NATS)
	if err != nil {
		t.Fatal(err)
	}
	for role, welcome := range map[identity.Role]bool{identity.NATS: true, identity.Gorouter: false} {
		server, err := issue(role).Server(identity.RouteEmitter, identity.Gorouter)
		if err != nil {
			t.Fatal(err)
		}
		url, stop, err := natsserver.Start("127.0.0.1:0", server)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		c, broadcasts := connect(t, Options{Addresses: []string{address(url)}, TLS: client})
		if welcome {
			wait(t, broadcasts, "broadcast over TLS")
			continue
		}
		if c.Connected() || c.nc.LastError() == nil && c.nc.Status() != nats.RECONNECTING {
			t.Errorf("believes a server that is %s: %v", role, c.nc.Status())
		}
	}
}
