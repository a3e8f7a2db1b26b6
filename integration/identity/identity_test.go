package identity_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/gorouter"
)

// answers counts what clients got, by who answered: a GUID, or a status.
type answers struct {
	news chan struct{} // told of each
	mu   sync.Mutex
	got  map[string]int
}

// load asks for apps with several clients until stop is called, and counts.
func (w *world) load(apps ...string) (byApp map[string]*answers, stop func()) {
	byApp = map[string]*answers{}
	end := make(chan struct{})
	var wg sync.WaitGroup
	for _, app := range apps {
		a := &answers{news: make(chan struct{}, 1), got: map[string]int{}}
		byApp[app] = a
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
					}
					status, body, err := w.get(app, "/")
					if status != 200 {
						body = fmt.Sprint(status, err)
					}
					a.mu.Lock()
					a.got[body]++
					a.mu.Unlock()
					select {
					case a.news <- struct{}{}:
					default:
					}
				}
			})
		}
	}
	stop = sync.OnceFunc(func() { close(end); wg.Wait() })
	w.t.Cleanup(stop)
	return byApp, stop
}

// await waits until somebody answered so often.
func (a *answers) await(t *testing.T, who string, n int) {
	t.Helper()
	for deadline := time.After(patience); ; {
		got := a.of(who)
		if got >= n {
			return
		}
		select {
		case <-a.news:
		case <-deadline:
			a.mu.Lock()
			defer a.mu.Unlock()
			t.Fatalf("%d answers of %q, want %d: %v", got, who, n, a.got)
		}
	}
}

func (a *answers) of(who string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got[who]
}

// §24 "Identity": the proxy serves on the TLS port with the certificate of the instance.
func TestARequestReachesItsInstanceOverTLS(t *testing.T) {
	w := newWorld(t)
	w.desire("a", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	w.until(a)
	cert, err := a.hello()
	must(t, err)
	if cert.Subject.CommonName != a.guid || !slices.Equal(cert.Subject.OrganizationalUnit, []string{"app:a"}) {
		t.Errorf("certificate of %v", cert.Subject)
	}
}

// The cell loses an instance without a word, and its host port and its address go to another app. The routers go
// on with what they know. Nobody who asks for the first app ever gets the second one.
func TestAnotherInstanceIsNeverServed(t *testing.T) {
	w := newWorld(t)
	w.desire("a", 2)
	w.desire("b", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	w.until(a)
	got, stop := w.load("a", "b")
	got["a"].await(t, a.guid, 50)

	a.vanish()
	b := w.boot("b", 0, "127.61.0.2", 61001)
	b.run()
	got["b"].await(t, b.guid, 50)
	got["a"].await(t, "503 <nil>", 50)
	status, _, err := w.get("a", "/")
	if status != 503 || err != nil {
		t.Errorf("the app that is gone: %d, %v", status, err)
	}

	again := w.boot("a", 1, "127.61.0.3", 61002)
	again.run()
	got["a"].await(t, again.guid, 50)
	stop()
	for app, mine := range map[string][]string{"a": {a.guid, again.guid}, "b": {b.guid}} {
		for who, n := range got[app].got {
			if strings.Contains(who, "-at-") && !slices.Contains(mine, who) {
				t.Errorf("%d requests for %s were served by %s", n, app, who)
			}
		}
		t.Logf("%s: %v", app, got[app].got)
	}
}

// §14.4: once its certificate is not the instance's any more, nobody new gets to it; what was begun is finished.
func TestAnInstanceThatIsStoppedFinishesWhatItHas(t *testing.T) {
	w := newWorld(t)
	w.desire("a", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	w.until(a)
	finished := make(chan string, 1)
	go func() {
		status, body, err := w.get("a", "/held")
		finished <- fmt.Sprint(status, body, err)
	}()
	<-a.held
	must(t, w.store.Disown(a.wanted))
	_, err := a.hello()
	if mismatch := (x509.HostnameError{}); !errors.As(err, &mismatch) {
		t.Errorf("a new connection: %v", err)
	}
	close(a.release)
	if got, want := <-finished, fmt.Sprint(200, a.guid, nil); got != want {
		t.Errorf("the request in hand got %q, want %q", got, want)
	}
}

// A new certificate is there for the next connection; the ones that are there go on.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	w.desire("a", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	w.until(a)
	finished := make(chan string, 1)
	go func() {
		status, body, err := w.get("a", "/held")
		finished <- fmt.Sprint(status, body, err)
	}()
	<-a.held
	before, err := a.hello()
	must(t, err)
	a.wanted.Units = []string{"app:a", "space:new"}
	_, err = w.store.Ensure(a.wanted)
	must(t, err)
	after, err := a.hello()
	must(t, err)
	if after.Equal(before) || !slices.Contains(after.Subject.OrganizationalUnit, "space:new") {
		t.Errorf("certificate of %v after the rotation", after.Subject)
	}
	close(a.release)
	if got, want := <-finished, fmt.Sprint(200, a.guid, nil); got != want {
		t.Errorf("the request in hand got %q, want %q", got, want)
	}
}

// An upgrade of the proxy is noticed by nobody.
func TestUpgradeUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.desire("a", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	w.until(a)
	got, stop := w.load("a")
	for n := range 3 {
		got["a"].await(t, a.guid, 100*(n+1))
		before, err := w.proxy.Self(t.Context())
		must(t, err)
		w.process.Args = append(slices.Clone(w.process.Args), "-idle-timeout", fmt.Sprintf("%dm", 10+n))
		w.open()
		after, err := w.proxy.Self(t.Context())
		must(t, err)
		if before.PID == after.PID {
			t.Fatal("nothing was upgraded")
		}
	}
	got["a"].await(t, a.guid, got["a"].of(a.guid)+100)
	stop()
	if len(got["a"].got) != 1 {
		t.Errorf("answers during upgrades: %v", got["a"].got)
	}
	t.Logf("%v", got["a"].got)
}

// A proxy that was killed comes back with what it had, at the same ports.
func TestKilledProxy(t *testing.T) {
	w := newWorld(t)
	w.desire("a", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	w.until(a)
	self, err := w.proxy.Self(t.Context())
	must(t, err)
	w.kill(self.PID)
	begin := time.Now()
	w.open()
	w.until(a)
	t.Logf("answered again %v after the kill", time.Since(begin))
}

// §24 "Identity": clients without the certificate that is asked for are refused.
func TestARouterWithoutCertificateIsRefused(t *testing.T) {
	w := newWorld(t, func(c *gorouter.Config) { c.BackendCertFile, c.BackendKeyFile = "", "" })
	w.desire("a", 1)
	a := w.boot("a", 0, "127.61.0.2", 61001)
	a.run()
	for deadline := time.Now().Add(patience); ; {
		status, body, err := w.get("a", "/")
		if status == 496 {
			return
		}
		if body == a.guid || time.Now().After(deadline) {
			t.Fatalf("got %d %q, %v", status, body, err)
		}
	}
}
