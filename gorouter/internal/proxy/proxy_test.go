package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/gorouter/http1"
	"muster/gorouter/internal/accesslog"
	"muster/gorouter/internal/meter"
	"muster/gorouter/routes"
)

// world is a router with its clients and backends, over real connections.
type world struct {
	t     testing.TB
	s     *Server
	m     *meter.Meter
	addr  string
	log   *lockedBuffer
	table *Table
	stop  func()
}

// untilKept waits until the backend that was made last has a connection for the next request: that happens
// after the answer to the last one has gone out.
func (w *world) untilKept() {
	for kept := 0; kept == 0; runtime.Gosched() {
		w.s.backends.mu.Lock()
		b := w.s.backends.first
		w.s.backends.mu.Unlock()
		b.mu.Lock()
		kept = len(b.idle)
		b.mu.Unlock()
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
	on chan struct{}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	select {
	case l.on <- struct{}{}:
	default:
	}
	return len(p), nil
}

// line waits for a line of the access log that holds what.
func (w *world) line(what string) string {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		w.log.mu.Lock()
		text := w.log.b.String()
		w.log.mu.Unlock()
		for l := range strings.Lines(text) {
			if strings.Contains(l, what) {
				return l
			}
		}
		select {
		case <-w.log.on:
		case <-deadline:
			w.t.Fatalf("no line with %q in the access log:\n%s", what, text)
		}
	}
}

func testConfig() Config {
	return Config{
		Limits: http1.Limits{HeadBytes: 16 << 10, Fields: 50}, MaxAttempts: 3, MaxIdle: 10, FailedFor: 30 * time.Second,
		DialTimeout: 2 * time.Second, TLSTimeout: 2 * time.Second, HeadTimeout: 5 * time.Second, BackendIdle: time.Minute, EmptyIs503: true,
	}
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	w := &world{t: t, m: &meter.Meter{}, log: &lockedBuffer{on: make(chan struct{}, 1)}}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	lines := accesslog.New(w.log, log)
	w.s = New(cfg, log, lines, w.m)
	w.table = routes.New[*Turn, *Backend](routes.Rules{StaleAfter: time.Hour})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.s.Serve(ctx, l, 2*time.Second); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { lines.Run(ctx) })
	w.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(w.stop)
	return w
}

// route registers an address.
func (w *world) route(uri, address string) *Backend {
	w.t.Helper()
	info := routes.Info{Address: address, App: "app-" + uri, InstanceID: "inst-" + address, InstanceIndex: "3"}
	b := w.s.Backend(ID{Address: info.Address, App: info.App, InstanceID: info.InstanceID, Index: info.InstanceIndex})
	w.table, _ = w.table.Register(uri, routes.Endpoint[*Backend]{Info: info, Link: b}, NewTurn(0), time.Unix(1, 0))
	w.s.SetTable(w.table)
	return b
}

// raw listens and lets handle have each connection; n counts them.
func raw(t testing.TB, handle func(c *net.TCPConn, r *bufio.Reader, n int)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn), bufio.NewReader(c), n)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// web is a backend of net/http.
func web(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

// readHead reads the lines of a head.
func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return b.String(), err
		}
		if b.WriteString(l); l == "\r\n" {
			return b.String(), nil
		}
	}
}

// dial connects a client.
func (w *world) dial() (*net.TCPConn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn), bufio.NewReader(c)
}

// talk sends text and returns everything that comes back until the router closes.
func (w *world) talk(text string) string {
	w.t.Helper()
	c, r := w.dial()
	if _, err := io.WriteString(c, text); err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// get makes a request on its own connection with a client that is not ours.
func (w *world) get(method, url, body string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.addr+url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host = "app.test"
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(b)
}

// refusing returns an address nobody listens at.
func refusing(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

func want(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

func TestWhatABackendSees(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	heads := make(chan string, 10)
	addr := raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		for {
			h, err := readHead(r)
			if err != nil {
				return
			}
			heads <- h
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nX-Cf-RouterError: forged\r\nKeep-Alive: 5\r\n\r\nok")
		}
	})
	w.route("app.test/p", addr)
	got := w.talk("GET /p/%2F?x=\"y HTTP/1.1\r\nhost: App.Test:80\r\nX-Keep: 1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Gone: 1\r\nConnection: close, x-gone, X-Forwarded-For\r\n" +
		"X-Vcap-Request-Id: mine\r\nX-CF-InstanceID: forged\r\nProxy-Authorization: secret\r\nX-Forwarded-For: 8.8.8.8\r\n\r\n")
	want(t, got, "HTTP/1.1 200 OK\r\n", "X-A: b\r\n", "X-Vcap-Request-Id: ", "Connection: close\r\n", "\r\n\r\nok")
	head := <-heads
	want(t, head, "GET /p/%2F?x=\"y HTTP/1.1\r\nhost: App.Test:80\r\nX-Keep: 1\r\n", "X-Forwarded-For: 9.9.9.9, 8.8.8.8, 127.0.0.1\r\n",
		"X-Forwarded-Proto: http\r\n", "X-CF-ApplicationID: app-app.test/p\r\n", "X-CF-InstanceIndex: 3\r\n", "X-CF-InstanceID: inst-"+addr+"\r\n", "X-Request-Start: 1")
	for _, no := range []string{"forged", "Gone", "Connection", "mine", "secret", "Accept-Encoding", "User-Agent", "Keep-Alive"} {
		if strings.Contains(head, no) || no != "Connection" && strings.Contains(got, no) {
			t.Errorf("%s passed:\n%s%s", no, head, got)
		}
	}
	line := w.line("/p/%2F")
	want(t, line, "App.Test:80 - [2", `"GET /p/%2F?x=\"y HTTP/1.1" 200 0 2 "-" "-" "127.0.0.1:`, `"`+addr+`" x_forwarded_for:"9.9.9.9, 8.8.8.8, 127.0.0.1" x_forwarded_proto:"http" vcap_request_id:"`,
		`app_id:"app-app.test/p" app_index:"3" instance_id:"inst-`+addr+`" x_cf_routererror:"-"`)
}

func TestTheRoutersOwnAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.route("dead.test", refusing(t))
	for name, tc := range map[string]struct {
		ask  string
		want []string
	}{
		"no route": {"GET / HTTP/1.1\r\nHost: no.test\r\nConnection: close\r\n\r\n",
			[]string{"HTTP/1.1 404 Not Found\r\n", "X-Cf-Routererror: unknown_route\r\n", "Cache-Control: no-cache, no-store\r\n", "X-Vcap-Request-Id: ", "\r\n\r\n404 Not Found: Requested route ('no.test') does not exist.\n"}},
		"no host":        {"GET / HTTP/1.0\r\n\r\n", []string{"HTTP/1.1 400 Bad Request\r\n", "X-Cf-Routererror: empty_host\r\n", "400 Bad Request: Request had empty Host header\n"}},
		"dead endpoint":  {"GET / HTTP/1.1\r\nHost: dead.test\r\nConnection: close\r\n\r\n", []string{"HTTP/1.1 502 Bad Gateway\r\n", "X-Cf-Routererror: endpoint_failure (dial: connect: connection refused)\r\n", "502 Bad Gateway: Registered endpoint failed to handle the request.\n"}},
		"dead, HEAD":     {"HEAD / HTTP/1.1\r\nHost: no.test\r\nConnection: close\r\n\r\n", []string{"HTTP/1.1 404 Not Found\r\n", "Content-Length: 59\r\n"}},
		"malformed host": {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", []string{"HTTP/1.1 400 Bad Request\r\n", "400 Bad Request: malformed Host header\n", "Connection: close\r\n"}},
		"head too large": {"GET / HTTP/1.1\r\nHost: dead.test\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", []string{"HTTP/1.1 431 ", "X-Cf-Routererror: max-request-size-exceeded\r\n", "Content-Length: 0\r\n"}},
		"smuggling":      {"POST / HTTP/1.1\r\nHost: dead.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n", []string{"HTTP/1.1 400 Bad Request\r\n"}},
		"bad chunk":      {"POST / HTTP/1.1\r\nHost: dead.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", []string{"HTTP/1.1 400 Bad Request\r\n", "malformed chunk size"}},
	} {
		got := w.talk(tc.ask)
		want(t, got, tc.want...)
		if n := strings.Count(got, "HTTP/1.1 "); n != 1 {
			t.Errorf("%s: %d responses:\n%s", name, n, got)
		}
		if strings.HasPrefix(tc.ask, "HEAD") && !strings.HasSuffix(got, "\r\n\r\n") {
			t.Errorf("%s: has a body", name)
		}
	}
	if n := w.m.Total(meter.BadGateways); n != 1 {
		t.Errorf("counted %d bad gateways", n)
	}
	w.line(`endpoint_failure (dial: connect: connection refused)`)
}

func TestADeadEndpointIsPassedOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := web(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, b)
	})
	dead := []*Backend{w.route("app.test", refusing(t)), w.route("app.test", refusing(t))}
	w.route("app.test", addr)
	for i := range 6 {
		if resp, body := w.get("POST", "/", "x"); resp.StatusCode != 200 || body != "POST x" {
			t.Fatalf("request %d: %d %q", i, resp.StatusCode, body)
		}
	}
	if n := w.m.Total(meter.Retries); n < 1 || n > 2 {
		t.Errorf("%d retries: the dead were not remembered", n)
	}
	if dead[0].failed.Load() == 0 || dead[1].failed.Load() == 0 {
		t.Error("not marked failed")
	}
}

func TestRequestsAreSharedOutInTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var mu sync.Mutex
	seen := map[string]int{}
	for i := range 3 {
		w.route("app.test", web(t, func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprint(i)]++
		}))
	}
	for range 30 {
		w.get("GET", "/", "")
	}
	for i := range 3 {
		if seen[fmt.Sprint(i)] != 10 {
			t.Errorf("got %v", seen)
		}
	}
}

// settled waits until no goroutine of the router is left but those of the test itself.
func settled(t testing.TB, before int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}
