package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/gorouter/internal/meter"
	"muster/gorouter/routes"
	"muster/internal/identity"
)

func TestAClientThatLeavesLetsTheBackendGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	asked, closed := make(chan struct{}, 2), make(chan struct{}, 2)
	b := w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		h, _ := readHead(r)
		if strings.Contains(h, "/events") {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\ndata")
		}
		asked <- struct{}{}
		r.ReadByte()
		closed <- struct{}{}
	}))
	for _, path := range []string{"/slow", "/events"} {
		c, r := w.dial()
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: app.test\r\n\r\n")
		<-asked
		if path == "/events" {
			if _, err := readHead(r); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		<-closed // the backend never answers, so only the client's leaving can have closed this
	}
	want(t, w.line("/slow"), `" 499 0 0 `, `x_cf_routererror:"endpoint_failure (context canceled)"`)
	if b.failed.Load() != 0 {
		t.Error("the backend is blamed for it")
	}
}

func TestAClientThatLeavesWhileSending(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	closed := make(chan struct{})
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		io.Copy(io.Discard, r)
		close(closed)
	}))
	c, _ := w.dial()
	io.WriteString(c, "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100\r\n\r\nabc")
	c.Close()
	<-closed
	want(t, w.line("/x"), `" 499 3 0 `)
}

func TestAMalformedBodyBehindItsHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	asked := make(chan struct{})
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		readHead(r)
		close(asked)
		io.Copy(io.Discard, r)
	}))
	c, r := w.dial()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n")
	<-asked
	io.WriteString(c, "0x3\r\nabc\r\n")
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want(t, string(b), "HTTP/1.1 400 Bad Request\r\n", "malformed chunk size")
}

func TestTimeLimits(t *testing.T) {
	t.Parallel()
	short := 100 * time.Millisecond
	w := newWorld(t, func(c *Config) { c.RequestTimeout, c.HeadTimeout, c.ClientIdle = short, short, short })
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		h, _ := readHead(r)
		if strings.Contains(h, "/half") {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
		}
		r.ReadByte()
	}))
	for name, tc := range map[string]struct{ send, want string }{
		"idle":             {"", ""},
		"slow head":        {"GET / HTTP/1.1\r\nHo", ""},
		"silent backend":   {"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n", "HTTP/1.1 502 Bad Gateway\r\n"},
		"backend stops":    {"GET /half HTTP/1.1\r\nHost: app.test\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
		"client's body":    {"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 502 Bad Gateway\r\n"},
		"idle after reply": {"GET / HTTP/1.1\r\nHost: none\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
	} {
		c, r := w.dial()
		io.WriteString(c, tc.send)
		b, err := io.ReadAll(r) // ends because the router ends it
		var timeout net.Error
		if !strings.HasPrefix(string(b), tc.want) || tc.want == "" && len(b) > 0 || err != nil && isTimeout(err, &timeout) {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
	want(t, w.line("deadline"), `endpoint_failure (context deadline exceeded)`)
}

func isTimeout(err error, target *net.Error) bool {
	ne, ok := err.(net.Error)
	*target = ne
	return ok && ne.Timeout()
}

func TestAReusedConnectionThatWasClosed(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		w := newWorld(t, nil)
		var conns atomic.Int32
		closed := make(chan struct{}, 10)
		w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
			conns.Add(1)
			readHead(r)
			io.WriteString(c, okHead) // it says it will stay, and goes
			c.Close()
			closed <- struct{}{}
		}))
		for range 5 {
			body := ""
			if method == "POST" {
				body = "abc"
			}
			if resp, got := w.get(method, "/", body); resp.StatusCode != 200 || got != "ok" {
				t.Fatalf("%s: %d %q %s", method, resp.StatusCode, got, resp.Header.Get("X-Cf-RouterError"))
			}
			<-closed
		}
		if conns.Load() != 5 {
			t.Errorf("%s: %d connections", method, conns.Load())
		}
	}
}

// The first request of a connection is answered; the second is taken and the connection closed.
func TestWhatIsSentTwice(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ask    string
		status string
		asked  int32
	}{
		"GET":                       {"GET /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n", "200", 3},
		"POST without a body":       {"POST /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n", "200", 3},
		"POST with a body":          {"POST /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", "502", 2},
		"POST with body and key":    {"POST /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nIdempotency-Key: 1\r\nContent-Length: 1\r\n\r\na", "200", 3},
		"POST with a body to await": {"POST /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nIdempotency-Key: 1\r\nContent-Length: 2\r\n\r\na", "502", 2},
	} {
		w := newWorld(t, nil)
		var asked atomic.Int32
		w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, n int) {
			for i := 0; ; i++ {
				if _, err := readHead(r); err != nil {
					return
				}
				asked.Add(1)
				if n == 0 && i == 1 {
					return
				}
				if n > 0 && strings.Contains(name, "body") && !strings.Contains(name, "without") {
					r.ReadByte()
				}
				io.WriteString(c, okHead)
			}
		}))
		w.get("GET", "/first", "")
		w.untilKept()
		got := w.talk(tc.ask)
		if !strings.HasPrefix(got, "HTTP/1.1 "+tc.status) || asked.Load() != tc.asked {
			t.Errorf("%s: asked %d times, want %d:\n%s", name, asked.Load(), tc.asked, got)
		}
	}
}

func TestFullEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.MaxInFlight = 1 })
	asked, goOn := make(chan struct{}), make(chan struct{})
	w.route("app.test", web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			w.(http.Flusher).Flush() // the head is out: the body counts too
			close(asked)
			<-goOn
		}
	}))
	c, r := w.dial()
	io.WriteString(c, "GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n")
	<-asked
	resp, _ := w.get("GET", "/", "")
	if resp.StatusCode != 503 || resp.Header.Get("X-Cf-RouterError") != "Connection Limit Reached" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	close(goOn)
	held, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(held.Body); err != nil {
		t.Fatal(err)
	}
	w.line("/hold")
	if resp, _ := w.get("GET", "/", ""); resp.StatusCode != 200 {
		t.Errorf("after it: %d", resp.StatusCode)
	}
}

func TestARouteServiceIsNotPassedBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	info := routes.Info{Address: refusing(t), RouteService: "https://rs.test"}
	w.table, _ = w.table.Register("app.test", routes.Endpoint[*Backend]{Info: info, Link: w.s.Backend(ID{Address: info.Address})}, NewTurn(0), time.Unix(1, 0))
	w.s.SetTable(w.table)
	if resp, _ := w.get("GET", "/", ""); resp.StatusCode != 502 || resp.Header.Get("X-Cf-RouterError") != "route_service_unsupported" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestBackendsWithTLS(t *testing.T) {
	t.Parallel()
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secure") }))
	ts.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
	ts.StartTLS()
	defer ts.Close()
	pool := x509.NewCertPool()
	pool.AddCert(ts.Certificate())
	plain := web(t, func(http.ResponseWriter, *http.Request) {})
	ask := func(ca *x509.CertPool, id ID, counted ...meter.Counter) (int, string) {
		w := newWorld(t, func(c *Config) { c.BackendCAs = ca })
		w.table, _ = w.table.Register("app.test", routes.Endpoint[*Backend]{Info: routes.Info{Address: id.Address}, Link: w.s.Backend(id)}, NewTurn(0), time.Unix(1, 0))
		w.s.SetTable(w.table)
		resp, body := w.get("GET", "/", "")
		for _, c := range counted {
			if n := w.m.Total(c); n != 1 {
				t.Errorf("%d answers with %d are counted, want 1", n, resp.StatusCode)
			}
		}
		return resp.StatusCode, body
	}
	addr := ts.Listener.Addr().String()
	if status, body := ask(pool, ID{Address: addr, TLS: true, ServerName: "example.com"}); status != 200 || body != "secure" {
		t.Errorf("right name: %d %q", status, body)
	}
	for name, tc := range map[string]struct {
		id      ID
		ca      *x509.CertPool
		want    int
		counted meter.Counter
	}{
		"another instance": {ID{Address: addr, TLS: true, ServerName: "other"}, pool, 503, meter.BackendInvalidID},
		"untrusted":        {ID{Address: addr, TLS: true, ServerName: "example.com"}, x509.NewCertPool(), 526, meter.BackendInvalidCert},
		"plain text":       {ID{Address: plain, TLS: true, ServerName: "example.com"}, pool, 525, meter.BackendHandshakeFailed},
	} {
		if status, _ := ask(tc.ca, tc.id, tc.counted); status != tc.want {
			t.Errorf("%s: got %d, want %d", name, status, tc.want)
		}
	}
}

// clientCA makes a CA of its own for routers, and a certificate by it.
func clientCA(t *testing.T) (*x509.CertPool, *tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	ca, err := identity.OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ca.Issue(identity.ID{Role: identity.Gorouter})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool, &pair
}

// A backend that asks for a certificate of the router gets it. One that refuses it has processed nothing, though
// with TLS 1.3 the request is on its way by then: another endpoint is asked, whatever the request is.
func TestBackendsThatAskForACertificate(t *testing.T) {
	t.Parallel()
	trusted, own := clientCA(t)
	_, foreign := clientCA(t)
	pool := x509.NewCertPool()
	asking := func(version uint16) string {
		ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
		ts.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
		ts.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted, MaxVersion: version}
		ts.StartTLS()
		t.Cleanup(ts.Close)
		pool.AddCert(ts.Certificate())
		return ts.Listener.Addr().String()
	}
	old, current := asking(tls.VersionTLS12), asking(tls.VersionTLS13)
	free := web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	for name, tc := range map[string]struct {
		cert    *tls.Certificate
		address []string
		want    int
	}{
		"the right one, TLS 1.2":  {own, []string{old}, 200},
		"the right one, TLS 1.3":  {own, []string{current}, 200},
		"none, TLS 1.2":           {nil, []string{old}, 525}, // the alert says no more than that
		"none, TLS 1.3":           {nil, []string{current}, 496},
		"a wrong one, TLS 1.2":    {foreign, []string{old}, 496},
		"a wrong one, TLS 1.3":    {foreign, []string{current}, 496},
		"none, another, TLS 1.2":  {nil, []string{old, free}, 200},
		"none, another, TLS 1.3":  {nil, []string{current, free}, 200},
		"wrong, another, TLS 1.3": {foreign, []string{current, free}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) {
				c.BackendCAs = pool
				if tc.cert != nil {
					c.BackendCert = func() (*tls.Certificate, error) { return tc.cert, nil }
				}
			})
			for _, a := range tc.address {
				id := ID{Address: a, TLS: a != free, ServerName: "example.com"}
				w.table, _ = w.table.Register("app.test", routes.Endpoint[*Backend]{Info: routes.Info{Address: a}, Link: w.s.Backend(id)}, NewTurn(0), time.Unix(1, 0))
			}
			w.s.SetTable(w.table)
			for range 8 { // the turn of each endpoint
				for _, e := range w.table.Lookup([]byte("app.test"), nil).Endpoints {
					e.Link.failed.Store(0)
				}
				resp, body := w.get("POST", "/", "hello")
				if resp.StatusCode != tc.want || tc.want == 200 && body != "hello" {
					t.Errorf("got %d %q (%s), want %d", resp.StatusCode, body, resp.Header.Get("X-Cf-RouterError"), tc.want)
				}
			}
		})
	}
}

func TestDrainFinishesWhatIsInHand(t *testing.T) {
	w := newWorld(t, nil)
	asked, goOn := make(chan struct{}), make(chan struct{})
	w.route("app.test", web(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-goOn
		io.WriteString(w, "done")
	}))
	_, idleR := w.dial()
	c, r := w.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	<-asked
	stopped := make(chan struct{})
	go func() { w.stop(); close(stopped) }()
	if _, err := idleR.ReadByte(); err == nil {
		t.Error("an idle connection got something")
	}
	if _, err := net.Dial("tcp", w.addr); err == nil {
		t.Error("a new connection was accepted")
	}
	close(goOn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "done" || err != nil || !resp.Close {
		t.Errorf("got %q, %v, close %v", b, err, resp.Close)
	}
	<-stopped
}

func TestDrainCutsTunnelsAndHangingRequests(t *testing.T) {
	w := newWorld(t, nil)
	asked := make(chan struct{}, 2)
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		if h, _ := readHead(r); strings.Contains(h, "Upgrade") {
			io.WriteString(c, "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		}
		asked <- struct{}{}
		r.ReadByte()
	}))
	for _, extra := range []string{"", "Connection: Upgrade\r\nUpgrade: x\r\n"} {
		c, _ := w.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.test\r\n"+extra+"\r\n")
		<-asked
	}
	w.stop() // returns
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t, nil)
	b := w.route("app.test", web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 5 {
				w.get("POST", "/", strings.Repeat("x", 20000))
			}
		})
	}
	wg.Wait()
	w.stop()
	if n := b.InFlight(); n != 0 {
		t.Errorf("%d requests in hand", n)
	}
	w.s.mu.Lock()
	conns := len(w.s.conns)
	w.s.mu.Unlock()
	if conns != 0 {
		t.Errorf("%d connections", conns)
	}
	// The backend's own goroutines end with its connections, which the drain closed.
	settled(t, before+2)
}

func TestARequestAllocatesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.route("app.test", raw(t, func(c *net.TCPConn, _ *bufio.Reader, _ int) {
		buf := make([]byte, 4096)
		resp := []byte(okHead)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(resp); err != nil {
				return
			}
		}
	}))
	c, _ := w.dial()
	ask := []byte("GET /path?q=1 HTTP/1.1\r\nHost: app.test\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n")
	buf, ok := make([]byte, 4096), []byte("ok")
	one := func() {
		if _, err := c.Write(ask); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || !bytes.HasSuffix(buf[:n], ok) {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
	}
	for range 2000 {
		one()
	}
	// Buffers of the log still grow now and then, which the average rounds away.
	if n := testing.AllocsPerRun(2000, one); n > 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

func TestBytesNobodyAskedForAnswerNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, n int) {
		for i := 0; ; i++ {
			if _, err := readHead(r); err != nil {
				return
			}
			if n > 0 || i > 0 {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Conn: "+string(rune('0'+n))+"\r\n\r\nx")
				continue
			}
			io.WriteString(c, okHead+"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
		}
	}))
	if _, body := w.get("GET", "/", ""); body != "ok" {
		t.Errorf("got %q", body)
	}
	if resp, body := w.get("GET", "/", ""); body != "x" || resp.Header.Get("X-Conn") != "1" {
		t.Errorf("got %q over connection %s", body, resp.Header.Get("X-Conn"))
	}
}
