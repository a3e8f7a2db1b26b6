package diego_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/bbs"
	"muster/integration/diego"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// maxBody is the largest body that is read.
const maxBody = 64 << 20

const invalidText = "the request received is invalid"

// Whatever comes as a request gets a stated answer on every route, and callers over gRPC notice nothing.
func TestNonsenseIsAnswered(t *testing.T) {
	t.Parallel()
	i := install(t)
	ctx := t.Context()
	ignores := map[string]bool{"/v1/ping": true, "/v1/domains/list": true, "/v1/cells/list.r1": true} // their body
	random := rand.New(rand.NewPCG(1, 2))
	for _, path := range paths {
		cut := m().Text(1, strings.Repeat("x", 200))[:100]
		noise := make([]byte, 300)
		for n := range noise {
			noise[n] = byte(random.Uint32())
		}
		noise[0] = 7 // a kind of field that there is not
		for what, body := range map[string]diego.Message{"cut off": cut, "random": noise, "not UTF-8": m().Text(1, "\xff\xfe")} {
			res, err := i.operator.Call(ctx, path, body)
			must(t, err)
			var e *diego.Error
			isError := errors.As(res.Err(), &e)
			switch {
			case res.Status != http.StatusOK:
				t.Errorf("%s: %s: status %d", path, what, res.Status)
			case ignores[path]:
				if res.Err() != nil {
					t.Errorf("%s: %s: %v, although it has no request", path, what, res.Err())
				}
			case !isError || e.Type != diego.InvalidRequest:
				t.Errorf("%s: %s: %v, want an invalid request", path, what, res.Err())
			case what == "random" && e.Message != invalidText:
				t.Errorf("%s: %s: %q, want %q", path, what, e.Message, invalidText)
			}
		}
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			if res := send(t, i.operator, method, path); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != http.MethodPost {
				t.Errorf("%s %s: status %d, allowed %q", method, path, res.StatusCode, res.Header.Get("Allow"))
			}
		}
		if res := send(t, i.operator, http.MethodPost, path+"/"); res.StatusCode != http.StatusNotFound || strings.HasPrefix(res.Header.Get("Content-Type"), "application") {
			t.Errorf("%s/: status %d", path, res.StatusCode)
		}
	}
	for path, method := range map[string]string{instanceStream: http.MethodPost, "/v1/events/lrp_instances": http.MethodPost, groupStream: http.MethodGet,
		"/v1/events": http.MethodGet, taskStream: http.MethodPost, "/v1/events/tasks": http.MethodPost} {
		if res := send(t, i.operator, http.MethodPut, path); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != method {
			t.Errorf("PUT %s: status %d, allowed %q", path, res.StatusCode, res.Header.Get("Allow"))
		}
		if strings.Contains(path, "tasks") {
			continue // these ignore the body
		}
		if _, err := i.operator.Stream(ctx, method, path, diego.Message("\x07")); err == nil || !strings.Contains(err.Error(), "status 500") {
			t.Errorf("%s %s with a body that is no message: %v", method, path, err)
		}
	}
	if err := i.ours(identity.ID{Role: identity.Client}).UpsertDomain(ctx, "d", 0); err != nil {
		t.Errorf("over gRPC: %v", err)
	}
}

// send makes a request without a body and returns the answer without one.
func send(t *testing.T, c *diego.Client, method, path string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, nil)
	must(t, err)
	res, err := c.HTTP.Do(r)
	must(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	must(t, err)
	res.Body.Close()
	return res
}

// Nobody looks at the type of the content.
func TestContentTypeIsNotLookedAt(t *testing.T) {
	t.Parallel()
	i := install(t)
	for _, kind := range []string{"", "application/json", "text/plain; charset=utf-8"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.cc.URL+"/v1/domains/upsert", bytes.NewReader(m().Text(1, "d")))
		must(t, err)
		r.Header.Set("Content-Type", kind)
		res, err := i.cc.HTTP.Do(r)
		must(t, err)
		text, err := io.ReadAll(res.Body)
		must(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusOK || len(text) != 0 {
			t.Errorf("content type %q: status %d, %q", kind, res.StatusCode, text)
		}
	}
}

// Bodies that end early and bodies that are too long are no requests, however they come.
func TestBodiesThatAreNotThere(t *testing.T) {
	t.Parallel()
	i := install(t)
	config := i.tls(i.diego.issue(t, certificate{name: "cloud_controller"}).load(t))
	const head = "POST /v1/domains/upsert HTTP/1.1\r\nHost: x\r\n"
	for what, request := range map[string]string{
		"ends early":          head + "Content-Length: 100\r\n\r\n\x0a\x01d",
		"ends within a chunk": head + "Transfer-Encoding: chunked\r\n\r\n64\r\n\x0a\x01d",
		"too long":            head + fmt.Sprintf("Content-Length: %d\r\n\r\n", maxBody+1),
	} {
		conn, err := tls.Dial("tcp", i.door, config)
		must(t, err)
		_, err = io.WriteString(conn, request)
		must(t, err)
		must(t, conn.CloseWrite())
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		body, err := io.ReadAll(res.Body)
		must(t, err)
		if want := failed(diego.InvalidRequest, invalidText); res.StatusCode != http.StatusOK || string(body) != string(want) {
			t.Errorf("%s: status %d, %q, want %q", what, res.StatusCode, body, want)
		}
		conn.Close()
	}
	// One that does not say how long it is.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.cc.URL+"/v1/domains/upsert", io.LimitReader(zeros{}, maxBody+1))
	must(t, err)
	res, err := i.cc.HTTP.Do(r)
	if err == nil { // it may be cut off while it is still being sent
		body, err := io.ReadAll(res.Body)
		if want := failed(diego.InvalidRequest, invalidText); err == nil && string(body) != string(want) {
			t.Errorf("endless: %q, want %q", body, want)
		}
		res.Body.Close()
	}
	if _, err := i.cc.Do(t.Context(), "/v1/domains/upsert", m().Text(1, "d")); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Who may come in, and as what.
func TestCertificates(t *testing.T) {
	t.Parallel()
	i := install(t)
	ctx := t.Context()
	for what, c := range map[string]*diego.Client{
		"no certificate":    i.client(),
		"one of another CA": i.client(newForeignCA(t).issue(t, certificate{name: "cloud_controller"}).load(t)),
	} {
		if _, err := c.Call(ctx, "/v1/ping", nil); err == nil {
			t.Errorf("with %s a client gets in", what)
		}
	}
	nobody := i.guest("nobody", "nobody.example")
	s := &story{t, map[string]bool{}}
	s.want(nobody, "/v1/ping", nil, m())
	if _, err := nobody.Do(ctx, "/v1/domains/list", nil); err == nil || !strings.Contains(err.Error(), "client_roles") || !strings.Contains(err.Error(), "nobody.example") {
		t.Errorf("a name without a role: %v", err)
	}
	if _, err := nobody.Stream(ctx, http.MethodPost, instanceStream, nil); err == nil || !strings.Contains(err.Error(), "status 403") {
		t.Errorf("a name without a role opens a stream: %v", err)
	}
	// What a foreign CA signed makes nobody a cell of ours, whatever it says; its name counts.
	claims := i.client(i.diego.issue(t, certificate{name: "cloud_controller", uri: "spiffe://muster/rep/c1"}).load(t))
	s.want(claims, "/v1/desired_lrp/desire.r2", m().Message(1, desired("p", 1)), done)
	if _, err := claims.Do(ctx, "/v1/actual_lrps/claim", claim("p", 0, instance("i", "c1"))); err == nil || !strings.HasPrefix(err.Error(), "error of type 0: client may not call") {
		t.Errorf("a claim with a claimed identity: %v", err)
	}
	// A cell sees its own, and hears of its own.
	c1 := i.cell("c1")
	if _, err := c1.Do(ctx, "/v1/actual_lrps/list", m().Text(2, "c2")); err == nil {
		t.Error("a cell lists what is another's")
	}
	for path, kind := range map[string]string{instanceStream: http.MethodPost, taskStream: http.MethodPost, groupStream: http.MethodGet} {
		if _, err := c1.Stream(ctx, kind, path, m().Text(1, "c2")); err == nil || !strings.Contains(err.Error(), "status 403") {
			t.Errorf("a cell hears what is another's on %s: %v", path, err)
		}
	}
	res, err := c1.Do(ctx, "/v1/desired_lrps/get_by_process_guid.r3", guid("p"))
	if err != nil || res.TextAt(2, 1) != "p" {
		t.Errorf("a cell reads what it could take: %q (%v)", res, err)
	}
	// The id of a request comes back, and is what the events say.
	back, err := i.cc.WithTrace("a-b").Call(ctx, "/v1/domains/list", nil)
	if err != nil || back.Header.Get("X-Vcap-Request-Id") != "a-b" {
		t.Errorf("the id of the request comes back as %q (%v)", back.Header.Get("X-Vcap-Request-Id"), err)
	}
}

// Until the database is there every route answers 503 without a body, streams and ping included.
func TestUnavailableUntilTheDatabaseIsThere(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url := pgtest.DatabaseOn(t, cluster, nil)
	must(t, cluster.Stop(t.Context()))
	i := &installation{t: t, diego: newForeignCA(t)}
	var err error
	i.own, err = identity.OpenCA(t.TempDir())
	must(t, err)
	cfg := i.config(url)
	l, err := net.Listen("tcp", "127.0.0.1:0") // an address that is known before the BBS is ready
	must(t, err)
	i.door = l.Addr().String()
	cfg.Diego.ListenAddress = i.door
	must(t, l.Close())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- bbs.Run(ctx, quiet(), cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the BBS ended with %v", err)
		}
	})
	cc := i.guest("cloud_controller")
	reached(t, i.door)
	for _, path := range append([]string{instanceStream, taskStream}, paths...) {
		res, err := cc.Call(t.Context(), path, nil)
		must(t, err)
		if res.Status != http.StatusServiceUnavailable || len(res.Body) != 0 {
			t.Errorf("%s: status %d, %q", path, res.Status, res.Body)
		}
	}
}

// reached waits until somebody listens.
func reached(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		<-tick.C
	}
	t.Fatalf("nobody listens on %s", address)
}
