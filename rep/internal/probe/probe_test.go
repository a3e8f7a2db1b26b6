package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
)

func settings(dial Dial) Settings {
	return Settings{Timeout: time.Second, Interval: 30 * time.Second, StartupMax: 250 * time.Millisecond, Dial: dial, Pool: make(chan struct{}, 4)}
}

func portOf(t testing.TB, raw string) uint32 {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return uint32(port)
}

func closedPort(t testing.TB) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// TestTexts makes single probes against real servers: apps and their owners depend on the texts.
func TestTexts(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != "diego-healthcheck" || r.Header.Get("X-Forwarded-Proto") != "https" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/created", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-hang })
	mux.HandleFunc("/reset", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	open, closed := portOf(t, server.URL), closedPort(t)
	for _, row := range []struct {
		name  string
		check lrp.Check
		want  string // a pattern of the text with one * for a number; empty: passes
	}{
		{"TCP, open", lrp.Check{TCP: &lrp.TCPCheck{Port: open}}, ""},
		{"TCP, closed", lrp.Check{TCP: &lrp.TCPCheck{Port: closed}},
			fmt.Sprintf("failed to make TCP connection to 127.0.0.1:%d: dial tcp 127.0.0.1:%d: connect: connection refused", closed, closed)},
		{"HTTP 200", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/ok"}}, ""},
		{"HTTP, only 200 counts", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/created"}},
			fmt.Sprintf("failed to make HTTP request to '/created' on port %d: received status code 201 in *ms", open)},
		{"HTTP, the default path is /", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open}},
			fmt.Sprintf("failed to make HTTP request to '/' on port %d: received status code 404 in *ms", open)},
		{"HTTP, redirect inside", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/redirect"}}, ""},
		{"HTTP, redirect out of the container", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/away"}},
			fmt.Sprintf("failed to make HTTP request to '/away' on port %d: connection refused", open)},
		{"HTTP, a timeout beyond all bounds is a long one", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/ok", RequestTimeoutMS: 1 << 58}}, ""},
		{"HTTP, refused", lrp.Check{HTTP: &lrp.HTTPCheck{Port: closed, Path: "/x"}},
			fmt.Sprintf("failed to make HTTP request to '/x' on port %d: connection refused", closed)},
		{"HTTP, reset", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/reset"}},
			fmt.Sprintf("failed to make HTTP request to '/reset' on port %d: connection refused", open)},
		{"HTTP, too slow", lrp.Check{HTTP: &lrp.HTTPCheck{Port: open, Path: "/hang", RequestTimeoutMS: 20}},
			fmt.Sprintf("failed to make HTTP request to '/hang' on port %d: timed out after 0.02 seconds", open)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var d net.Dialer
			s := Schedule{Settings: settings(d.DialContext), Address: "127.0.0.1"}
			err := s.probe(t.Context(), s.target(row.check))
			if row.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			before, after, _ := strings.Cut(row.want, "*")
			if err == nil || !strings.HasPrefix(err.Error(), before) || !strings.HasSuffix(err.Error(), after) {
				t.Errorf("got %v\nwant %s", err, row.want)
			}
		})
	}
}

// world answers dials from a script under virtual time.
type world struct {
	begin time.Time
	up    func(since time.Duration, port string) bool
	dials []time.Duration
	mu    chan struct{}
}

func newWorld(up func(time.Duration, string) bool) *world {
	return &world{begin: time.Now(), up: up, mu: make(chan struct{}, 1)}
}

func (w *world) dial(_ context.Context, _, address string) (net.Conn, error) {
	w.mu <- struct{}{}
	defer func() { <-w.mu }()
	since := time.Since(w.begin)
	w.dials = append(w.dials, since)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if !w.up(since, port) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	a, b := net.Pipe()
	go io.Copy(io.Discard, b) //nolint:errcheck // ends with a
	return a, nil
}

func tcp(port uint32) lrp.Check { return lrp.Check{TCP: &lrp.TCPCheck{Port: port}} }

// TestStartupIsTightAtFirst shows when probes are made, and that all checks have to pass.
func TestStartupIsTightAtFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(func(since time.Duration, port string) bool {
			return since >= 40*time.Millisecond && port == "1" || since >= 2*time.Second
		})
		s := Schedule{Settings: settings(w.dial), Address: "10.0.0.2"}
		if err := s.Startup(t.Context(), []lrp.Check{tcp(1)}, 0); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(w.begin); got > 70*time.Millisecond {
			t.Errorf("healthy after 40ms, noticed after %v", got)
		}
		if diff := cmp.Diff([]time.Duration{0, 5 * time.Millisecond, 12500 * time.Microsecond, 23750 * time.Microsecond, 40625 * time.Microsecond}, w.dials); diff != "" {
			t.Error(diff)
		}
		if err := s.Startup(t.Context(), []lrp.Check{tcp(1), tcp(2)}, 0); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(w.begin); got < 2*time.Second || got > 2250*time.Millisecond {
			t.Errorf("both pass after 2s, noticed after %v", got)
		}
	})
}

func TestStartupTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(func(_ time.Duration, port string) bool { return port == "1" })
		s := Schedule{Settings: settings(w.dial), Address: "10.0.0.2"}
		err := s.Startup(t.Context(), []lrp.Check{tcp(1), tcp(2), tcp(3)}, 10*time.Millisecond)
		const want = "Timed out after 10ms (2 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.0.0.2:2: dial tcp: connection refused; " +
			"Timed out after 10ms (2 attempts) waiting for startup check to succeed: failed to make TCP connection to 10.0.0.2:3: dial tcp: connection refused"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Startup(ctx, []lrp.Check{tcp(2)}, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled startup answered %v", err)
		}
	})
}

func TestLivenessEndsWithTheFirstFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(func(since time.Duration, port string) bool { return port == "1" || since < 25*time.Second })
		s := Schedule{Settings: settings(w.dial), Address: "10.0.0.2"}
		err := s.Liveness(t.Context(), []lrp.Check{tcp(1), {TCP: &lrp.TCPCheck{Port: 2, IntervalMS: 10_000}}})
		const want = "Liveness check unsuccessful: failed to make TCP connection to 10.0.0.2:2: dial tcp: connection refused"
		if err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
		if got := time.Since(w.begin); got != 30*time.Second {
			t.Errorf("noticed after %v, want 30s", got)
		}
	})
}

func TestReadinessFlips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(func(since time.Duration, _ string) bool {
			return since > 3*time.Second && since < 50*time.Second || since > 70*time.Second
		})
		s := Schedule{Settings: settings(w.dial), Address: "10.0.0.2"}
		ctx, cancel := context.WithTimeout(t.Context(), 80*time.Second)
		defer cancel()
		var flips []string
		s.Readiness(ctx, []lrp.Check{tcp(1)}, false, func(ready bool) {
			flips = append(flips, fmt.Sprintf("%v %v", time.Since(w.begin).Round(time.Second), ready))
		})
		if diff := cmp.Diff([]string{"3s true", "1m3s false", "1m10s true"}, flips); diff != "" {
			t.Error(diff)
		}
	})
}

// TestPoolBoundsProbes shows that waiting for room is not counted as a failure.
func TestPoolBoundsProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(func(time.Duration, string) bool { return true })
		s := Schedule{Settings: settings(w.dial), Address: "10.0.0.2"}
		for range cap(s.Pool) {
			s.Pool <- struct{}{}
		}
		done := make(chan error, 1)
		go func() { done <- s.Startup(t.Context(), []lrp.Check{tcp(1)}, 0) }()
		synctest.Wait()
		if len(w.dials) != 0 {
			t.Error("a probe was made beyond the bound")
		}
		<-s.Pool
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
