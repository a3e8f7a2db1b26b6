package door

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/bbs/lrp"
)

// piped is a listener whose connections are made in memory, so that their deadlines are those of the bubble.
type piped struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPiped() *piped { return &piped{make(chan net.Conn), make(chan struct{})} }

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error   { close(p.done); return nil }
func (p *piped) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial returns the client's end of a new connection.
func (p *piped) dial(t *testing.T) net.Conn {
	t.Helper()
	here, there := net.Pipe()
	p.conns <- there
	t.Cleanup(func() { here.Close() })
	return here
}

// A stream that was silent for longer than a portion may take to be written ends as any other: its client
// sees the end, not a connection that broke.
func TestSilentStreamsEndWell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newTestBroadcast()
		d := &Door{broadcast: b, stopping: make(chan struct{})}
		l := newPiped()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := joined(t, b, place{instances, lrp.CellID("")}, false)
			defer b.leave(s)
			if err := d.write(r.Context(), w, s); err != nil {
				t.Errorf("the stream ends with %v", err)
			}
		})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		conn := l.dial(t)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * writeTime)
		close(d.stopping)
		if text, err := io.ReadAll(res.Body); err != nil || len(text) != 0 {
			t.Errorf("the client reads %q (%v), want the end", text, err)
		}
		conn.Close()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// The log tells of a client that is cut off because it reads too slowly, and where it is; it is silent about
// the others.
func TestTheLogTellsWhoIsCutOff(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"a client that reads nothing": false, "a client that leaves": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newTestBroadcast()
				var text bytes.Buffer
				d := &Door{Options: Options{Log: slog.New(slog.NewTextHandler(&text, nil))}, broadcast: b, stopping: make(chan struct{})}
				done := make(chan struct{})
				conn := speak(t, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", func(w http.ResponseWriter, r *http.Request) {
					defer close(done)
					s := joined(t, b, place{instances, ""}, false)
					defer b.leave(s)
					b.offer([]*frame{{told{to: instances}, 1, make([]byte, 2*portionBytes)}})
					d.ended(r, d.write(r.Context(), w, s))
				})
				if reads {
					if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
						t.Fatal(err)
					}
					conn.Close()
				}
				<-done
				if told := strings.Contains(text.String(), "cut off") && strings.Contains(text.String(), "path=/v1/events client=pipe"); told == reads {
					t.Errorf("logged %q", text.String())
				}
			})
		})
	}
}

// speak lets a server answer one request whose head is given, and returns the client's end.
func speak(t *testing.T, head string, h http.HandlerFunc) (conn net.Conn) {
	t.Helper()
	l := newPiped()
	server := &http.Server{Handler: h}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn = l.dial(t)
	t.Cleanup(func() { conn.Close(); server.Close(); <-served })
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A body that does not come, and an answer that is not read, keep the door waiting for so long and no longer.
func TestNobodyIsWaitedForForever(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		head   string
		handle func(w http.ResponseWriter, r *http.Request) error
		takes  time.Duration
	}{
		"a body": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", func(w http.ResponseWriter, r *http.Request) error {
			_, err := readBody(w, r, nil)
			return err
		}, bodyTime},
		"an answer": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) error {
			writeAnswer(w, make([]byte, 4*answerBytes))
			return errUnread
		}, writeTime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				took := make(chan time.Duration, 1)
				speak(t, tc.head, func(w http.ResponseWriter, r *http.Request) {
					start := time.Now()
					if err := tc.handle(w, r); err == nil {
						t.Error("what never came was there")
					}
					took <- time.Since(start)
				})
				if got := <-took; got != tc.takes {
					t.Errorf("it was waited for for %v, want %v", got, tc.takes)
				}
			})
		})
	}
}
