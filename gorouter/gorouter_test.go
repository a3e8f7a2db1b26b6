package gorouter

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"muster/gorouter/internal/meter"
	"muster/gorouter/internal/proxy"
	"muster/gorouter/internal/subscribe"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/natsserver"
	"muster/internal/natstest"
)

// running is a router that accepts clients.
type running struct {
	t          testing.TB
	http       string
	status     string
	stop       func() error
	configured *Config
}

func testDefaults(url string) *Config {
	cfg := Defaults()
	cfg.DebugAddress, cfg.HTTPAddress, cfg.StatusAddress = "", "127.0.0.1:0", "127.0.0.1:0"
	cfg.NATSURLs, cfg.NATSPlaintext, cfg.StartResponseDelay, cfg.AccessLog = []string{url}, true, 0, ""
	return cfg
}

func start(t testing.TB, cfg *Config) *running {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan [2]string, 1)
	cfg.Ready = func(h, s net.Addr) { ready <- [2]string{h.String(), s.String()} }
	done := make(chan error, 1)
	go func() { done <- Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), cfg) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	select {
	case a := <-ready:
		return &running{t: t, http: a[0], status: a[1], stop: stop, configured: cfg}
	case err := <-done:
		t.Fatalf("the router ended: %v", err)
		return nil
	}
}

// get asks through the router, for a host.
func (r *running) get(host string) (int, string) {
	r.t.Helper()
	req, _ := http.NewRequest("GET", "http://"+r.http+"/", nil)
	req.Host, req.Close = host, true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// until asks until the answer has a status; every answer is made by the router, so this asks as fast as it answers.
func (r *running) until(host string, status int) string {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if got, body := r.get(host); got == status {
			return body
		}
	}
	r.t.Fatalf("%s does not answer %d", host, status)
	return ""
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func app(t testing.TB, body string) (address, message string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
	t.Cleanup(s.Close)
	address = s.Listener.Addr().String()
	host, port, _ := net.SplitHostPort(address)
	return address, fmt.Sprintf(`{"host":%q,"port":%s,"uris":["%s.test"],"app":"a-%s","private_instance_id":"i-%s","private_instance_index":"0","tags":{"component":"route-emitter"}}`, host, port, body, body, body)
}

func TestFromRegisterToAnswerAndBack(t *testing.T) {
	t.Parallel()
	url := natstest.Start(t)
	nc := connect(t, url)
	greetings, err := nc.SubscribeSync("router.start")
	if err != nil {
		t.Fatal(err)
	}
	nc.Flush()
	log := filepath.Join(t.TempDir(), "access.log")
	cfg := testDefaults(url)
	cfg.AccessLog = log
	r := start(t, cfg)

	hello, err := greetings.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var g subscribe.Greeting
	if err := json.Unmarshal(hello.Data, &g); err != nil || !strings.HasPrefix(g.ID, "0-") || g.RegisterSeconds != 20 || g.PruneSeconds != 120 {
		t.Errorf("router.start: %s, %v", hello.Data, err)
	}
	if answer, err := nc.Request("router.greet", nil, 10*time.Second); err != nil || string(answer.Data) != string(hello.Data) {
		t.Errorf("router.greet: %v, %v", answer, err)
	}
	nc.Publish("router.greet", nil) // without a reply subject: harmless

	if status, body := r.get("one.test"); status != 404 || !strings.Contains(body, "Requested route ('one.test') does not exist.") {
		t.Errorf("before: %d %s", status, body)
	}
	address, message := app(t, "one")
	nc.Publish("router.register", []byte(`{broken`))
	nc.Publish("router.register", []byte(message))
	if body := r.until("one.test", 200); body != "one" {
		t.Errorf("got %q", body)
	}
	checkStatus(t, r, address)
	nc.Publish("router.unregister", []byte(strings.Replace(message, "i-one", "older", 1)))
	nc.Publish("router.unregister", []byte(strings.Replace(message, "one.test", "other.test", 1)))
	_, second := app(t, "two")
	nc.Publish("router.register", []byte(second))
	r.until("two.test", 200) // and so what was published before has been taken in
	if status, _ := r.get("one.test"); status != 200 {
		t.Errorf("an unregistration for another instance removed it: %d", status)
	}
	nc.Publish("router.unregister", []byte(message))
	r.until("one.test", 404)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), `app_id:"a-one" app_index:"0" instance_id:"i-one"`) {
		t.Errorf("access log: %v\n%s", err, text)
	}
}

func checkStatus(t *testing.T, r *running, address string) {
	t.Helper()
	for path, want := range map[string]string{
		"/health": "ok\n", "/is-process-alive-do-not-use-for-loadbalancing": "ok\n",
		"/routes": `{"one.test":[{"address":"` + address + `","availability_zone":"","protocol":"http1","tls":false,"ttl":120,"tags":{"component":"route-emitter"},"private_instance_id":"i-one"}]}` + "\n",
	} {
		resp, err := http.Get("http://" + r.status + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(b) != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, b)
		}
	}
}

func TestNATSGoesAndComesBack(t *testing.T) {
	t.Parallel()
	url, stop, err := natsserver.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, testDefaults(url))
	nc := connect(t, url)
	_, message := app(t, "one")
	nc.Publish("router.register", []byte(message))
	r.until("one.test", 200)
	stop()
	if status, _ := r.get("one.test"); status != 200 {
		t.Errorf("without NATS: %d", status)
	}
	_, stop, err = natsserver.Start(strings.TrimPrefix(url, "nats://"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	nc = connect(t, url)
	greetings, err := nc.SubscribeSync("router.start")
	if err != nil {
		t.Fatal(err)
	}
	nc.Flush()
	// Either the router said hello after the subscription, or it is there to be greeted.
	if _, err := greetings.NextMsg(2 * time.Second); err != nil {
		if _, err := nc.Request("router.greet", nil, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	nc.Publish("router.unregister", []byte(message))
	r.until("one.test", 404)
}

func TestMutualTLSTowardsNATS(t *testing.T) {
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
	server, err := issue(identity.NATS).Server(identity.Gorouter)
	if err != nil {
		t.Fatal(err)
	}
	url, stop, err := natsserver.Start("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	cfg := testDefaults(url)
	cfg.NATSPlaintext, cfg.TLS = false, issue(identity.Gorouter)
	r := start(t, cfg)
	if status, _ := r.get("no.test"); status != 404 {
		t.Errorf("got %d", status)
	}
}

func TestSIGUSR1Drains(t *testing.T) {
	t.Parallel()
	drain := make(chan struct{})
	cfg := testDefaults(natstest.Start(t))
	cfg.Drain, cfg.DrainWait = drain, daemon.Duration(300*time.Millisecond)
	r := start(t, cfg)
	close(drain)
	for healthy := true; healthy; {
		resp, err := http.Get("http://" + r.status + "/health")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		healthy = resp.StatusCode == 200
	}
	for {
		c, err := net.Dial("tcp", r.http)
		if err != nil {
			break
		}
		c.Close()
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsEverything(t *testing.T) {
	t.Parallel()
	cfg := Defaults()
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "tls_ca_file") {
		t.Errorf("without certificates: %v", err)
	}
	cfg.NATSPlaintext = true
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.HTTPAddress, cfg.MaxAttempts, cfg.StaleThreshold, cfg.NATSURLs, cfg.BackendKeyFile = "x", 0, 1, nil, "k"
	err := cfg.Validate()
	for _, want := range []string{`backend_cert_file "" and backend_key_file "k": name both or neither`, `http_address "x"`, "max_attempts 0: want 1 to 16", "stale_threshold 1ns: want 40s", "nats_urls is empty"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

// registryWorld is a registry with a clock of its own.
func registryWorld(t testing.TB) (*registry, *time.Time) {
	now := time.Unix(1_800_000_000, 0)
	m := &meter.Meter{}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	p := proxy.New(proxy.Config{}, log, nil, m)
	cfg := Defaults()
	r := newRegistry(cfg, log, m.Shard(), p)
	r.now = func() time.Time { return now }
	r.tick(true)
	return r, &now
}

func messages(ms ...string) []subscribe.Message {
	var out []subscribe.Message
	for _, m := range ms {
		rest, remove := strings.CutPrefix(m, "-")
		out = append(out, subscribe.Message{Remove: remove, Payload: []byte(rest)})
	}
	return out
}

func TestNothingIsPrunedBecauseNATSWasAway(t *testing.T) {
	t.Parallel()
	r, now := registryWorld(t)
	r.messages(messages(`{"host":"h","port":1,"uris":["a","b"]}`))
	step := func(d time.Duration, connected bool, want int) {
		t.Helper()
		*now = now.Add(d)
		if r.tick(connected); r.table.Load().Routes() != want {
			t.Errorf("%d routes, want %d", r.table.Load().Routes(), want)
		}
	}
	step(2*time.Minute, true, 2)
	step(time.Hour, false, 2)
	step(time.Second, true, 2)
	step(2*time.Minute, true, 2)
	step(31*time.Second, true, 0)
	if len(r.backends) != 0 {
		t.Errorf("%d backends are left", len(r.backends))
	}
}

func TestBackendsAreSharedAndLetGo(t *testing.T) {
	t.Parallel()
	r, _ := registryWorld(t)
	link := func(uri string) *proxy.Backend {
		p := r.table.Load().Lookup([]byte(uri), nil)
		if p == nil {
			return nil
		}
		return p.Endpoints[0].Link
	}
	r.messages(messages(`{"host":"h","port":1,"uris":["a","b"],"private_instance_id":"i"}`, `{"host":"h","port":1,"uris":["c"],"private_instance_id":"i"}`))
	if link("a") == nil || link("a") != link("b") || link("a") != link("c") {
		t.Error("one endpoint is several backends")
	}
	old := link("a")
	r.messages(messages(`{"host":"h","port":1,"uris":["a"],"private_instance_id":"j"}`, `-{"host":"h","port":1,"uris":["a"],"private_instance_id":"i"}`))
	if link("a") == old || link("b") != old || len(r.backends) != 2 {
		t.Errorf("after the address changed hands: %d backends", len(r.backends))
	}
	r.messages(messages(`-{"host":"h","port":1,"uris":["a","b","c"]}`, `{"host":"h","port":2}`))
	if r.table.Load().Routes() != 0 || len(r.backends) != 0 {
		t.Errorf("%d routes, %d backends are left", r.table.Load().Routes(), len(r.backends))
	}
}
