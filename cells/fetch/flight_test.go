package fetch

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slow answers after a while, unless the client goes away.
type slow struct {
	origin
	after             time.Duration
	now, most, denied atomic.Int32
}

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	select {
	case <-time.After(s.after):
		s.origin.ServeHTTP(w, r)
	case <-r.Context().Done():
		s.denied.Add(1)
	}
}

// Who asks for the same shares one download; who gives up takes it from nobody.
func TestOneDownloadForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{origin: origin{content: tgz(t, "one"), etag: `"1"`}, after: 5 * time.Second}
		f := virtual(t, s)
		r := Request{Name: "app", URL: "http://origin/file", CacheKey: "k"}
		impatient, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if i%2 == 0 {
					_, err := f.Archive(impatient, r)
					failed(t, err, "Downloading app failed", "context canceled")
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				if content, a := get(t, f, r); content != "one" || a.Cached {
					t.Errorf("got %q, %+v", content, a)
				}
			})
		}
		time.Sleep(time.Second)
		cancel()
		all.Wait()
		if asked, _ := s.counts(); asked != 1 || s.denied.Load() != 0 {
			t.Errorf("the server was asked %d times", asked)
		}
		if u := f.Usage(); u.Entries != 1 || u.Held != u.Bytes {
			t.Errorf("%+v", u)
		}
	})
}

// When all gave up the download ends, and the next one begins anew.
func TestAllGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{origin: origin{content: tgz(t, "one"), etag: `"1"`}, after: 5 * time.Second}
		f := virtual(t, s)
		r := Request{URL: "http://origin/file", CacheKey: "k"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, err := f.Archive(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if s.denied.Load() != 1 || len(f.downloads) != 0 || f.Usage().Bytes != 0 {
			t.Errorf("%d requests ended, %d slots are taken, %+v", s.denied.Load(), len(f.downloads), f.Usage())
		}
		if content, a := get(t, f, r); content != "one" || a.Cached {
			t.Errorf("got %q, %+v", content, a)
		}
	})
}

// Who has other credentials gets an answer of its own to them.
func TestCredentialsAreNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{origin: origin{content: tgz(t, "one"), etag: `"1"`}, after: time.Second}
		f := virtual(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != secret {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			s.ServeHTTP(w, r)
		}))
		var all sync.WaitGroup
		all.Go(func() { get(t, f, Request{URL: "http://user:" + secret + "@origin/file", CacheKey: "k"}) })
		all.Go(func() {
			synctest.Wait()
			_, err := f.Archive(t.Context(), Request{URL: "http://user:wrong@origin/file", CacheKey: "k"})
			failed(t, err, "Downloading failed", "download from origin: attempt 1 of 4: status code 403")
		})
		all.Wait()
	})
}

// At most MaxDownloads at once; those who wait for the others can give up.
func TestDownloadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{origin: origin{content: tgz(t, "one"), etag: `"1"`}, after: 5 * time.Second}
		f := virtual(t, s)
		begin := time.Now()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				r := Request{URL: "http://origin/file"}
				if i%2 == 0 {
					r.CacheKey = string(rune('a' + i))
				}
				_, a := get(t, f, r)
				a.Close()
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Archive(ctx, Request{URL: "http://origin/file"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		all.Wait()
		if took := time.Since(begin); s.most.Load() != 5 || took != 20*time.Second {
			t.Errorf("%d at once, %v in all", s.most.Load(), took)
		}
	})
}

// Many who download, use, lose and close at once, with a cache that is too small for all (run with -race).
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	o := big(t, 1)
	url := serve(t, o)
	f := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 12 << 20 })
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			r := Request{URL: url, CacheKey: string(rune('a' + i%7))}
			if i%3 == 0 {
				container := string(rune('A' + i))
				if _, d := directory(t, f, r, container); !exists(d.Path) {
					t.Error("a directory in use is gone")
				}
				f.Release(container)
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%5 == 0 {
				cancel()
			}
			a, err := f.Archive(ctx, r)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(errors.Unwrap(err))
				}
				return
			}
			if !exists(a.Path) {
				t.Error("an archive in use is gone")
			}
			a.Close()
		})
	}
	all.Wait()
	if u := f.Usage(); u.Held != 0 || u.Bytes > u.Most {
		t.Errorf("%+v", u)
	}
}
