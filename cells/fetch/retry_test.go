package fetch

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// answers runs a handler that is told which attempt it serves, from 1 on.
func answers(asked *atomic.Int32, h func(n int32, w http.ResponseWriter, r *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(asked.Add(1), w, r) })
}

// Pauses of 0.5, 1 and 2 seconds, with up to 0.2 seconds more each, are between four attempts.
const (
	shortest = 3500 * time.Millisecond
	longest  = shortest + 3*maxJitter
)

func TestAttempts(t *testing.T) {
	hang := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, row := range map[string]struct {
		answer    func(http.ResponseWriter, *http.Request)
		attempts  int32
		why       string
		low, high time.Duration
	}{
		"500":             {status(500), 4, "status code 500", shortest, longest},
		"503":             {status(503), 4, "status code 503", shortest, longest},
		"429":             {status(429), 4, "status code 429", shortest, longest},
		"408":             {status(408), 4, "status code 408", shortest, longest},
		"401":             {status(401), 1, "status code 401", 0, 0},
		"404":             {status(404), 1, "status code 404", 0, 0},
		"201":             {status(201), 1, "status code 201", 0, 0},
		"304":             {status(304), 1, "status code 304", 0, 0}, // nothing was asked about
		"connection lost": {hang, 4, "", shortest, longest},
		"body cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(tarOfNoise(1000))
		}, 4, "", shortest, longest},
		"silence": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			4, "no byte came or went for 10s", shortest + 4*StallTimeout, longest + 4*StallTimeout},
		"silence in the body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(tarOfNoise(1000))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 4, "no byte came or went for 10s", shortest + 4*StallTimeout, longest + 4*StallTimeout},
		"a trickle": {func(w http.ResponseWriter, r *http.Request) {
			head := tarOfNoise(0)
			for r.Context().Err() == nil {
				if _, err := w.Write(head); err != nil {
					return
				}
				head = []byte("x")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(StallTimeout - time.Second)
			}
		}, 4, "it took longer than 10m0s", shortest + 4*AttemptTimeout, longest + 4*AttemptTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				f := virtual(t, answers(&asked, func(_ int32, w http.ResponseWriter, r *http.Request) { row.answer(w, r) }))
				begin := time.Now()
				_, err := f.Archive(t.Context(), Request{Name: "app", URL: withSecrets("http://origin"), CacheKey: "k"})
				took := time.Since(begin)
				failed(t, err, "Downloading app failed", fmt.Sprintf("attempt %d of 4: %s", row.attempts, row.why))
				if asked.Load() != row.attempts || took < row.low || took > row.high {
					t.Errorf("%d attempts took %v", asked.Load(), took)
				}
				if f.Usage().Bytes != 0 || len(f.downloads) != 0 {
					t.Errorf("left are %+v and %d slots", f.Usage(), len(f.downloads))
				}
			})
		})
	}
}

// A server that comes back in time is one that was never away.
func TestSecondAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{content: tgz(t, "one"), etag: `"1"`}
		var asked atomic.Int32
		f := virtual(t, answers(&asked, func(n int32, w http.ResponseWriter, r *http.Request) {
			switch n % 2 {
			case 1:
				w.WriteHeader(http.StatusBadGateway)
			default:
				o.ServeHTTP(w, r)
			}
		}))
		r := Request{URL: "http://origin/file", CacheKey: "k"}
		for _, cached := range []bool{false, true} {
			content, a := get(t, f, r)
			if content != "one" || a.Cached != cached {
				t.Errorf("got %q, %+v", content, a)
			}
			a.Close()
		}
		if u := f.Usage(); u.Entries != 1 || u.Held != 0 {
			t.Errorf("%+v", u)
		}
	})
}

// No slot is taken between two attempts.
func TestPausesTakeNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		f := virtual(t, answers(&asked, func(_ int32, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = f.Archive(ctx, Request{URL: "http://origin/file"}) }()
		synctest.Wait()
		if asked.Load() != 1 || len(f.downloads) != 0 {
			t.Errorf("after %d attempts %d slots are taken", asked.Load(), len(f.downloads))
		}
		cancel()
		synctest.Wait()
	})
}

// A connection that is not answered is given up.
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := func(c *Config) {
			c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		f := open(t, t.TempDir(), cfg)
		begin := time.Now()
		_, err := f.Archive(t.Context(), Request{URL: "http://origin/file"})
		failed(t, err, "Downloading failed", "attempt 4 of 4: context deadline exceeded")
		if took := time.Since(begin); took < shortest+4*ConnectTimeout || took > longest+4*ConnectTimeout {
			t.Errorf("it took %v", took)
		}
	})
}
