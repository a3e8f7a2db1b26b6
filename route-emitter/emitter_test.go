package emitter

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"muster/bbs/bbsclient"
	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/internal/natsserver"
	"muster/route-emitter/internal/publish"
	"muster/route-emitter/table"
)

// patience bounds the wait for something that has to happen.
const patience = 20 * time.Second

// listener is a NATS client that hears what routers hear.
type listener struct {
	t     *testing.T
	heard chan *nats.Msg
}

func listen(t *testing.T, url string, over ...*tls.Config) listener {
	t.Helper()
	var opts []nats.Option
	for _, c := range over {
		opts = append(opts, nats.Secure(c))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l := listener{t, make(chan *nats.Msg, 1000)}
	if _, err := nc.ChanSubscribe("router.>", l.heard); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return l
}

// next returns the next message about routes, printed as "register host:port uris instance".
func (l listener) next() string {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m := <-l.heard:
			kind := strings.TrimPrefix(m.Subject, "router.")
			if kind != "register" && kind != "unregister" {
				continue
			}
			var b table.Registration
			if err := json.Unmarshal(m.Data, &b); err != nil {
				l.t.Fatal(err)
			}
			return fmt.Sprintf("%s %s:%d %s %s", kind, b.Host, b.Port, strings.Join(b.URIs, ","), b.PrivateInstanceID)
		case <-deadline:
			l.t.Fatal("no message about routes")
		}
	}
}

func (l listener) expect(want string) {
	l.t.Helper()
	if got := l.next(); got != want {
		l.t.Fatalf("heard %q, want %q", got, want)
	}
}

func process(tag uint32) lrp.SchedulingInfo {
	return lrp.SchedulingInfo{
		Process: "p", Domain: "d", LogGUID: "log", Instances: 3, Tag: lrp.ModificationTag{Epoch: "d", Index: tag},
		Routes: map[string][]byte{"cf-router": []byte(`[{"hostnames":["a.example"],"port":8080}]`)},
	}
}

func instance(state lrp.State, tag uint32) *lrp.Actual {
	return &lrp.Actual{
		Key:         lrp.Key{Slot: lrp.Slot{Process: "p"}, Domain: "d"},
		InstanceKey: lrp.InstanceKey{Instance: "i", Cell: "c"}, State: state, Routable: true, Since: time.Unix(1, 0),
		NetInfo: lrp.NetInfo{Address: "10.0.0.1", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 60000}}},
		Tag:     lrp.ModificationTag{Epoch: "a", Index: tag},
	}
}

func actual(before, after *lrp.Actual) bbsclient.Event {
	return bbsclient.Event{At: time.Now(), Actual: &lrp.Change{Before: before, After: after}}
}

// TestOutageOfNATS: what changes while NATS is away is told when it is back, and nothing else is.
func TestOutageOfNATS(t *testing.T) {
	t.Parallel()
	url, stop, err := natsserver.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	_, address, _ := strings.Cut(url, "://")
	routers, err := publish.Connect(publish.Options{Addresses: []string{address}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	e := &emitter{routers: routers, metrics: newMetrics(prometheus.NewRegistry()), log: log, table: table.New(table.Options{UnregisterRepeats: 20})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { routers.Run(ctx, e.broadcast); done <- struct{}{} }()
	go func() { e.repeat(ctx, 50*time.Millisecond); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done; routers.Close() })
	if err := e.healthy(); err == nil || !strings.Contains(err.Error(), "BBS") {
		t.Errorf("healthy before the BBS was listed: %v", err)
	}
	e.synced.Store(true)

	l := listen(t, url)
	claimed, running := instance(lrp.Claimed, 1), instance(lrp.Running, 2)
	d := process(1)
	e.apply([]bbsclient.Event{{Desired: &event.DesiredChange{After: &d}}, actual(nil, claimed), actual(claimed, running), {}})
	l.expect("register 10.0.0.1:60000 a.example i")
	retiring := instance(lrp.Running, 3)
	retiring.Retiring = true
	e.apply([]bbsclient.Event{actual(running, retiring)})
	l.expect("unregister 10.0.0.1:60000 a.example i")
	l.expect("unregister 10.0.0.1:60000 a.example i") // repeated

	stop()
	moved := instance(lrp.Running, 4)
	moved.Instance, moved.NetInfo.Ports[0].HostPort = "j", 60001
	e.apply([]bbsclient.Event{actual(retiring, moved)})
	_, stop, err = natsserver.Start(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	l = listen(t, url)
	seen := map[string]bool{}
	for !seen["register 10.0.0.1:60001 a.example j"] || !seen["unregister 10.0.0.1:60000 a.example i"] {
		seen[l.next()] = true
	}
	if seen["register 10.0.0.1:60000 a.example i"] {
		t.Errorf("a dead route was registered: %v", seen)
	}
	if err := e.healthy(); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c := Defaults()
	c.JitterFactor, c.SyncInterval, c.NATSAddresses, c.UnregistrationSendCount = 2, 0, nil, -1
	err := c.Validate()
	for _, want := range []string{"jitter_factor 2", "sync_interval 0s", "nats_addresses", "unregistration_send_count -1", "tls.ca_file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word about %s in: %v", want, err)
		}
	}
}
