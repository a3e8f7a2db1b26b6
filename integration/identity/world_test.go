package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/bbs"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells/credential"
	"muster/cells/credential/issuer"
	"muster/cells/ports"
	"muster/cells/proxy"
	"muster/gorouter"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/natsserver"
	"muster/internal/pgtest"
	emitter "muster/route-emitter"
)

const (
	// patience bounds every wait; a healthy machine needs a fraction of it.
	patience = 60 * time.Second
	// cellAddress is that of the cell: a loopback address of its own, so that host ports are free.
	cellAddress = "127.61.0.1"
	appPort     = 8080
)

var rules = ports.Rules{TLS: true, OnlyTLS: true}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is everything between a client and an app.
type world struct {
	t        *testing.T
	ca       *identity.CA
	operator *bbsclient.Client
	cell     *bbsclient.Client
	store    *issuer.Store
	trusted  *x509.CertPool // the CA of instances
	process  proxy.Process
	proxy    *proxy.Client
	router   string // host:port
}

// newWorld starts it all; change may change the router.
func newWorld(t *testing.T, change ...func(*gorouter.Config)) *world {
	t.Helper()
	w := &world{t: t}
	dir := t.TempDir()
	var err error
	w.ca, err = identity.OpenCA(filepath.Join(dir, "ca"))
	must(t, err)
	instances := filepath.Join(dir, "instances") // has a CA of its own
	_, err = identity.OpenCA(instances)
	must(t, err)
	authority, err := issuer.Open(filepath.Join(instances, "ca.crt"), filepath.Join(instances, "ca.key"))
	must(t, err)
	w.store, err = issuer.NewStore(authority, filepath.Join(dir, "credentials"), time.Hour)
	must(t, err)
	w.trusted = x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(instances, "ca.crt"))
	must(t, err)
	w.trusted.AppendCertsFromPEM(pem)

	w.startControl(filepath.Join(instances, "ca.crt"), change...)
	w.startProxy()
	return w
}

func (w *world) issue(id identity.ID) identity.Files {
	w.t.Helper()
	f, err := w.ca.Issue(id)
	must(w.t, err)
	return f
}

// startControl starts the BBS, NATS, the emitter and the router.
func (w *world) startControl(instanceCA string, change ...func(*gorouter.Config)) {
	t, log := w.t, slog.New(slog.NewTextHandler(io.Discard, nil))
	bc := bbs.Defaults()
	bc.TLS, bc.ListenAddress, bc.DebugAddress = w.issue(identity.ID{Role: identity.BBS}), "127.0.0.1:0", ""
	bc.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	bc.DatabaseURL = daemon.Secret(pgtest.Database(t, nil))
	ready := make(chan net.Addr, 1)
	bc.Ready = func(a net.Addr) { ready <- a }
	w.background(func(ctx context.Context) error { return bbs.Run(ctx, log, bc) })
	address := (<-ready).String()
	w.operator = w.client(address, identity.ID{Role: identity.Operator})
	w.cell = w.client(address, identity.ID{Role: identity.Rep, Cell: "c"})

	server, err := w.issue(identity.ID{Role: identity.NATS}).Server(identity.RouteEmitter, identity.Gorouter)
	must(t, err)
	url, stop, err := natsserver.Start("127.0.0.1:0", server)
	must(t, err)
	t.Cleanup(stop)
	_, natsAddress, _ := strings.Cut(url, "://")
	ec := emitter.Defaults()
	ec.TLS, ec.BBSAddress, ec.DebugAddress, ec.NATSAddresses = w.issue(identity.ID{Role: identity.RouteEmitter}), address, "", []string{natsAddress}
	must(t, ec.Validate())
	w.background(func(ctx context.Context) error { return emitter.Run(ctx, log, ec) })

	gc := gorouter.Defaults()
	gc.TLS, gc.NATSURLs = w.issue(identity.ID{Role: identity.Gorouter}), []string{"tls://" + natsAddress}
	gc.HTTPAddress, gc.StatusAddress, gc.DebugAddress, gc.AccessLog, gc.StartResponseDelay = "127.0.0.1:0", "127.0.0.1:0", "", "", 0
	gc.BackendCAFile, gc.BackendCertFile, gc.BackendKeyFile = instanceCA, gc.TLS.Cert, gc.TLS.Key
	for _, f := range change {
		f(gc)
	}
	must(t, gc.Validate())
	accepting := make(chan string, 1)
	gc.Ready = func(a, _ net.Addr) { accepting <- a.String() }
	w.background(func(ctx context.Context) error { return gorouter.Run(ctx, log, gc) })
	w.router = <-accepting
}

func (w *world) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			w.t.Errorf("daemon ended: %v", err)
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

func (w *world) client(address string, id identity.ID) *bbsclient.Client {
	w.t.Helper()
	c, err := w.issue(id).Client(identity.BBS)
	must(w.t, err)
	conn, err := daemon.DialGRPC(address, c)
	must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	return bbsclient.New(conn)
}

// program builds cell-proxy once for all tests.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cell-proxy")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "cell-proxy")
	build := exec.Command("go", "build", "-o", out, "muster/cells/proxy/cmd/cell-proxy")
	if text, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(err, errors.New(string(text)))
	}
	return out, nil
})

// TestMain removes what tests built.
func TestMain(m *testing.M) {
	code := m.Run()
	if out, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(out))
	}
	os.Exit(code)
}

// startProxy starts cell-proxy, which lets only the router in, and keeps it alive.
func (w *world) startProxy() {
	w.t.Helper()
	bin, err := program()
	must(w.t, err)
	dir, err := os.MkdirTemp("", "proxy") // the path of a socket must be short
	must(w.t, err)
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	w.process = proxy.Process{Dir: dir, Program: bin, Version: daemon.Version, Args: []string{
		"-client-ca-file", w.issue(identity.ID{Role: identity.Gorouter}).CA, "-client-names", "spiffe://muster/gorouter", "-drain-timeout", "5s",
	}}
	w.open()
}

// open opens the process that is wanted, and ends it with the test.
func (w *world) open() {
	w.t.Helper()
	var err error
	w.proxy, err = proxy.Open(w.t.Context(), w.process)
	must(w.t, err)
	self, err := w.proxy.Self(w.t.Context())
	must(w.t, err)
	w.t.Cleanup(func() { w.kill(self.PID) })
}

func (w *world) kill(pid int) {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		w.t.Error(err)
	}
}

// desire desires an app of so many instances, at NAME.test.
func (w *world) desire(name string, instances int32) {
	w.t.Helper()
	must(w.t, w.operator.Desire(w.t.Context(), lrp.Desired{
		Process: lrp.ProcessGUID(name), Domain: "d", LogGUID: name, Instances: instances, RootFS: "docker:///app#v1", MemoryMB: 1, DiskMB: 1,
		Routes:     map[string][]byte{"cf-router": fmt.Appendf(nil, `[{"hostnames":["%s.test"],"port":%d}]`, name, appPort)},
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: name}},
		RunInfo:    lrp.RunInfo{Action: &lrp.Action{Run: &lrp.RunAction{Path: "/app", User: "u"}}, Ports: []uint32{appPort}},
	}))
}

// instance is a container on the cell, with an app that answers its own name.
type instance struct {
	w       *world
	guid    string
	process string
	index   int32
	address string // of the container
	wanted  issuer.Wanted
	server  *httptest.Server
	ports   []lrp.PortMapping
	held    chan struct{} // told when /held is asked for
	release chan struct{} // lets it answer
}

// boot makes a container with its certificates and its proxy, as a cell does before it says that it runs.
func (w *world) boot(process string, index int32, address string, hostPort uint16) *instance {
	w.t.Helper()
	i := &instance{
		w: w, guid: fmt.Sprintf("%s-%d-at-%s", process, index, address), process: process, index: index, address: address,
		held: make(chan struct{}, 1), release: make(chan struct{}),
	}
	layout, err := ports.Layout([]uint32{appPort}, rules)
	must(w.t, err)
	i.ports, err = ports.WithHostPorts(layout, rules, []uint16{hostPort})
	must(w.t, err)
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, appPort))
	must(w.t, err)
	i.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(i.answer)}}
	i.server.Start()
	w.t.Cleanup(i.server.Close)
	i.wanted = issuer.Wanted{Proxy: true, Subject: credential.Subject{
		Instance: i.guid, Units: []string{"app:" + process}, Hostnames: []string{process + ".apps.internal"}, Address: netip.MustParseAddr(address),
	}}
	_, err = w.store.Ensure(i.wanted)
	must(w.t, err)
	must(w.t, w.proxy.Set(w.t.Context(), i.proxied()))
	return i
}

func (i *instance) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/held" {
		i.held <- struct{}{}
		<-i.release
	}
	io.WriteString(w, i.guid)
}

// proxied is what the proxy does for it.
func (i *instance) proxied() proxy.Container {
	return proxy.For(proxy.Place{
		ID: i.guid, Address: i.address, Cell: cellAddress, VerifyClients: true,
		Instance: i.w.store.Path(i.guid, issuer.IdentityFile), Internal: i.w.store.Path(i.guid, issuer.InternalFile),
	}, i.ports)
}

// run says that it runs.
func (i *instance) run() {
	i.w.t.Helper()
	must(i.w.t, i.w.cell.Apply(i.w.t.Context(), lrp.Event{
		Name: lrp.Start, Key: lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(i.process), Index: i.index}, Domain: "d"},
		By: lrp.InstanceKey{Instance: lrp.InstanceGUID(i.guid), Cell: "c"}, Routable: true,
		NetInfo: lrp.NetInfo{Address: cellAddress, InstanceAddress: i.address, Preferred: lrp.PreferHost, Ports: i.ports},
	}))
}

// vanish destroys the container and tells nobody but the proxy.
func (i *instance) vanish() {
	i.w.t.Helper()
	must(i.w.t, i.w.proxy.Remove(i.w.t.Context(), i.guid))
	i.server.CloseClientConnections()
	i.server.Close()
}

// get asks the router, over a connection of its own.
func (w *world) get(app, path string) (status int, body string, err error) {
	req, err := http.NewRequest("GET", "http://"+w.router+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host, req.Close = app+".test", true
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// until asks until an instance answers.
func (w *world) until(i *instance) {
	w.t.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		status, body, err := w.get(i.process, "/")
		if body == i.guid {
			return
		}
		last = fmt.Sprint(status, body, err)
	}
	w.t.Fatalf("%s does not answer: %s", i.guid, last)
}

// hello shakes hands with an instance at its host port, as a router.
func (i *instance) hello() (*x509.Certificate, error) {
	f := i.w.issue(identity.ID{Role: identity.Gorouter})
	own, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	must(i.w.t, err)
	c, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", cellAddress, i.ports[0].HostTLSProxyPort), &tls.Config{
		ServerName: i.guid, RootCAs: i.w.trusted, Certificates: []tls.Certificate{own},
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}
