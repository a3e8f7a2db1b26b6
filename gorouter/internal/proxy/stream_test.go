package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

const okHead = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestFramingOfResponses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ask, backend string // backend closes after it
		want         string // the response, without X-Vcap-Request-Id; then the connection must answer again, if kept
		closes       bool
	}{
		"sized":                  {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false},
		"chunked, trailers":      {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3;e\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", false},
		"until close":            {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false},
		"old backend":            {"GET / HTTP/1.1", "HTTP/1.0 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false},
		"chunked to old client":  {"GET / HTTP/1.0\r\nConnection: keep-alive", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde", true},
		"sized to old client":    {"GET / HTTP/1.0\r\nConnection: keep-alive", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", false},
		"HEAD":                   {"HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false},
		"204 with nonsense":      {"GET / HTTP/1.1", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", false},
		"204 chunked":            {"GET / HTTP/1.1", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", false},
		"304":                    {"GET / HTTP/1.1", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false},
		"early hints":            {"GET / HTTP/1.1", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okHead, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okHead, false},
		"early hints, old":       {"GET / HTTP/1.0\r\nConnection: keep-alive", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okHead, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", false},
		"unasked upgrade":        {"GET / HTTP/1.1", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "502", false},
		"two lengths":            {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "502", false},
		"head too large":         {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 17<<10) + "\r\n\r\n", "502", false},
		"too many fields":        {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 51) + "\r\n", "502", false},
		"not HTTP":               {"GET / HTTP/1.1", "SSH-2.0-x\r\n\r\n", "502", false},
		"closes at once":         {"POST / HTTP/1.1", "", "502", false},
		"closes in the head":     {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-", "502", false},
		"more than told":         {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false},
		"endless informational":  {"GET / HTTP/1.1", strings.Repeat("HTTP/1.1 102 P\r\n\r\n", 40), "", false},
		"connection not reused":  {"GET / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false},
		"error with a long body": {"GET / HTTP/1.1", "HTTP/1.1 500 Oops\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("x", 60000), "HTTP/1.1 500 Oops\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("x", 60000), false},
	} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/slow=%v", name, slow), func(t *testing.T) {
				t.Parallel()
				if slow && len(tc.backend) > 5000 {
					return // by single bytes this shows nothing more
				}
				w := newWorld(t, nil)
				w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
					h, err := readHead(r)
					if err != nil {
						return
					}
					if strings.Contains(h, "/again") {
						io.WriteString(c, okHead)
						return
					}
					if slow {
						for i := range len(tc.backend) {
							io.WriteString(c, tc.backend[i:i+1])
							runtime.Gosched()
						}
						return
					}
					io.WriteString(c, tc.backend)
				}))
				c, r := w.dial()
				io.WriteString(c, tc.ask+"\r\nHost: app.test\r\n\r\n")
				if !tc.closes {
					io.WriteString(c, "GET /again HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
				}
				b, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				got := withoutIDs(string(b))
				again := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
				if tc.closes {
					again = ""
				}
				if tc.want == "502" {
					want(t, got, "HTTP/1.1 502 Bad Gateway\r\n", "endpoint_failure")
					if !strings.HasSuffix(got, again) {
						t.Errorf("the connection did not answer again:\n%s", got)
					}
				} else if enchunked := strings.HasSuffix(tc.want, "abc\r\n0\r\n\r\n") && !strings.Contains(tc.backend, "chunked"); slow && enchunked {
					// The chunks are as long as what happened to arrive together.
					resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
					if err != nil {
						t.Fatal(err)
					}
					if b, err := io.ReadAll(resp.Body); string(b) != "abc" || err != nil || !strings.HasSuffix(got, again) {
						t.Errorf("got\n%q, %v", got, err)
					}
				} else if tc.want != "" && got != tc.want+again {
					t.Errorf("got\n%q\nwant\n%q", got, tc.want+again)
				}
			})
		}
	}
}

func withoutIDs(s string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		if !strings.HasPrefix(l, "X-Vcap-Request-Id: ") {
			b.WriteString(l)
		}
	}
	return b.String()
}

func TestABrokenBodyDoesNotLookComplete(t *testing.T) {
	t.Parallel()
	for name, backend := range map[string]string{
		"sized":     "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
		"chunked":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"bad chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n0\r\n\r\n",
		"long":      "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\nabc",
	} {
		w := newWorld(t, nil)
		w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
			readHead(r)
			io.WriteString(c, backend)
		}))
		c, r := w.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			continue // not even the head: the connection was reset
		}
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: complete body %q", name, b)
		}
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.route("app.test", web(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "<%s %s>", r.URL.Path, b)
	}))
	var ask, wanted string
	for i := range 20 {
		switch i % 3 {
		case 0:
			ask += fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: app.test\r\n\r\n", i)
			wanted += fmt.Sprintf("</%d >", i)
		case 1:
			ask += fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc", i)
			wanted += fmt.Sprintf("</%d abc>", i)
		default:
			ask += fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", i)
			wanted += fmt.Sprintf("</%d abcd>", i)
		}
	}
	for _, step := range []int{1, 3, 100, 1 << 20} {
		c, r := w.dial()
		go func() {
			for rest := ask; rest != ""; {
				n := min(step, len(rest))
				io.WriteString(c, rest[:n])
				rest = rest[n:]
			}
		}()
		got := ""
		for range 20 {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("by %d, after %q: %v", step, got, err)
			}
			b, _ := io.ReadAll(resp.Body)
			got += string(b)
		}
		if got != wanted {
			t.Errorf("by %d: got %s\nwant %s", step, got, wanted)
		}
	}
}

func TestHugeBodiesInConstantMemory(t *testing.T) {
	const size = 100 << 20
	w := newWorld(t, nil)
	w.route("app.test", web(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		io.Copy(h, r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		io.CopyN(w, noise(), size)
	}))
	sum := sha256.New()
	io.CopyN(sum, noise(), size)
	for _, path := range []string{"/sized", "/chunked"} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		req, _ := http.NewRequest("POST", "http://"+w.addr+path, io.LimitReader(noise(), size))
		req.Host = "app.test"
		if path == "/sized" {
			req.ContentLength = size
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		down := sha256.New()
		n, err := io.Copy(down, resp.Body)
		resp.Body.Close()
		runtime.ReadMemStats(&after)
		if err != nil || n != size || !bytes.Equal(down.Sum(nil), sum.Sum(nil)) || resp.Header.Get("X-Sum") != fmt.Sprintf("%x", sum.Sum(nil)) {
			t.Errorf("%s: %d bytes, %v, or a wrong sum", path, n, err)
		}
		// Client and backend are in this process too; all together allocate far less than what passed.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
			t.Errorf("%s: allocated %d bytes", path, grown)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func noise() io.Reader { return rand.NewChaCha8([32]byte{1}) }

func TestEventsPassAtOnce(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	w := newWorld(t, nil)
	w.route("app.test", web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for e := range next {
			fmt.Fprintf(w, "data: %s\n\n", e)
			w.(http.Flusher).Flush()
		}
	}))
	c, r := w.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
	next <- "0"
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewReader(resp.Body)
	for i := range 10 {
		if l, err := events.ReadString('\n'); err != nil || l != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("got %q, %v", l, err)
		}
		events.ReadString('\n')
		if i < 9 {
			next <- fmt.Sprint(i + 1) // only once the one before has arrived
		}
	}
	close(next)
}

func TestBothDirectionsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		io.Copy(c, r) // the request's chunks are the response's
	}))
	c, r := w.dial()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		fmt.Fprintf(c, "1\r\n%d\r\n", i)
		b := make([]byte, 1)
		if _, err := io.ReadFull(resp.Body, b); err != nil || b[0] != byte('0'+i) {
			t.Fatalf("echo %d: %q, %v", i, b, err)
		}
	}
	io.WriteString(c, "0\r\n\r\n")
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
}

func TestAnEarlyAnswerToALongBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	}))
	c, r := w.dial()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000\r\n\r\nabc")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(b) != "no" || err != nil {
		t.Errorf("got %d %q %v", resp.StatusCode, b, err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the connection goes on in the middle of a body: %v", err)
	}
	w.line(" 413 ")
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	for name, backend := range map[string]string{"answered": "HTTP/1.1 100 Continue\r\n\r\n", "ignored": ""} {
		w := newWorld(t, nil)
		w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
			h, _ := readHead(r)
			want(t, h, "Expect: 100-continue\r\n", "Connection: close\r\n")
			io.WriteString(c, backend)
			b := make([]byte, 5)
			io.ReadFull(r, b)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s", b)
		}))
		c, r := w.dial()
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if h, err := readHead(r); err != nil || !strings.HasPrefix(h, "HTTP/1.1 100 Continue\r\n") {
			t.Fatalf("%s: %q, %v", name, h, err)
		}
		io.WriteString(c, "hello")
		h, err := readHead(r)
		if err != nil || !strings.HasPrefix(h, "HTTP/1.1 200 OK\r\n") {
			t.Fatalf("%s: %q, %v", name, h, err)
		}
		want(t, w.line("POST"), `" 200 5 5 "`)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.RequestTimeout = 100 * time.Millisecond })
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, _ int) {
		h, _ := readHead(r)
		want(t, h, "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Sec-WebSocket-Key: k\r\n")
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\nhello")
		io.Copy(c, r)
		io.WriteString(c, "bye") // after the client's side has ended
	}))
	c, r := w.dial()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly")
	h, err := readHead(r)
	if err != nil {
		t.Fatal(err)
	}
	want(t, h, "HTTP/1.1 101 Switching Protocols\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "Sec-WebSocket-Accept: a\r\n")
	b := make([]byte, 10)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "helloearly" {
		t.Fatalf("got %q, %v", b, err)
	}
	started := time.Now()
	for i := 0; time.Since(started) < 300*time.Millisecond; i++ { // past the request timeout
		msg := fmt.Sprintf("message %06d", i)
		io.WriteString(c, msg)
		b := make([]byte, len(msg))
		if _, err := io.ReadFull(r, b); err != nil || string(b) != msg {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "bye" {
		t.Errorf("got %q, %v", rest, err)
	}
	want(t, w.line("/ws"), `" 101 `)
}
