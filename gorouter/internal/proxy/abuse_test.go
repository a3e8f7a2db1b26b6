package proxy

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestABigHeadIsNotHeldOnTo has a client that sends as big a head as it may, and then nothing.
func TestABigHeadIsNotHeldOnTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits.HeadBytes = 1 << 20 })
	w.route("app.test", web(t, func(http.ResponseWriter, *http.Request) {}))
	client, r := w.dial()
	io.WriteString(client, "GET / HTTP/1.1\r\nHost: app.test\r\nReferer: "+strings.Repeat("x", 500<<10)+"\r\n\r\n")
	if head, err := readHead(r); err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		t.Fatalf("%.100q, %v", head, err)
	}
	w.s.mu.Lock()
	c := w.s.conns[0]
	w.s.mu.Unlock()
	w.stop() // and so the connection has waited for another request, and may be looked into
	if n := max(cap(c.in), cap(c.ask), cap(c.out), cap(c.line), cap(c.rec.Referer), cap(c.req.Target)); n > keptBuffer {
		t.Errorf("%d bytes are held", n)
	}
}

// TestWhoConnectsHasSomethingToAsk lets a client connect and say nothing; one that has asked may rest.
func TestWhoConnectsHasSomethingToAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.HeadTimeout = 200 * time.Millisecond; c.ClientIdle = time.Hour })
	asked, r := w.dial()
	const ask = "GET / HTTP/1.1\r\nHost: none.test\r\n\r\n"
	io.WriteString(asked, ask)
	if _, err := readHead(r); err != nil {
		t.Fatal(err)
	}
	silent, _ := w.dial()
	if n, err := io.Copy(io.Discard, silent); n != 0 || os.IsTimeout(err) {
		t.Errorf("a silent client: %d bytes, %v", n, err)
	}
	io.WriteString(asked, ask) // its time to rest began before the silent one came
	if _, err := readHead(skipBody(r)); err != nil {
		t.Errorf("a client that rested: %v", err)
	}
}

func skipBody(r *bufio.Reader) *bufio.Reader {
	r.ReadString('\n')
	return r
}

func TestWhatTheRouterLacksIsNoFailureOfTheBackend(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err         syscall.Errno
		retry, mark bool
	}{{syscall.EMFILE, false, false}, {syscall.ENFILE, false, false}, {syscall.ECONNREFUSED, true, true}, {syscall.EHOSTUNREACH, true, true}} {
		f := asFailure(dialFailure(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", tc.err)}))
		if f.retry != tc.retry || f.mark != tc.mark || f.status != 502 {
			t.Errorf("%v: %+v", tc.err, f)
		}
	}
}

// TestWhatTheClientDoesIsNotLogged lets a client leave while a backend is silent, and then a backend fail.
func TestWhatTheClientDoesIsNotLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	text := &lockedBuffer{on: make(chan struct{}, 1)}
	w.s.log = slog.New(slog.NewTextHandler(text, nil))
	asked := make(chan struct{})
	w.route("app.test", raw(t, func(c *net.TCPConn, r *bufio.Reader, n int) {
		readHead(r)
		close(asked)
		r.ReadByte()
	}))
	w.route("dead.test", refusing(t))
	c, _ := w.dial()
	io.WriteString(c, "GET /left HTTP/1.1\r\nHost: app.test\r\n\r\n")
	<-asked
	c.Close()
	w.line("/left")
	w.talk("GET / HTTP/1.1\r\nHost: dead.test\r\nConnection: close\r\n\r\n")
	text.mu.Lock()
	defer text.mu.Unlock()
	if log := text.b.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "app-dead.test") {
		t.Errorf("the log says\n%s\nwant one line, about the backend that failed", log)
	}
}
