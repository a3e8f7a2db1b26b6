package cell

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"muster/bbs"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/engine"
	"muster/integration/apps/image"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
	"muster/internal/privatecontainerd"
	"muster/rep"
	"muster/rep/repclient"
)

const (
	// patience bounds every wait; a healthy machine needs a fraction of it.
	patience = 60 * time.Second
	// lookEvery is the pause between two looks at something that cannot tell us.
	lookEvery = 5 * time.Millisecond
	// cellID is the cell of all tests; they run one after another.
	cellID = "c1"
	// repEnv names the configuration file for which this test binary is a rep; dieEnv names the step
	// of the engine at whose end that rep kills itself.
	repEnv, dieEnv = "MUSTER_TEST_REP", "MUSTER_TEST_DIE_AT"
)

// initPath is the program that runs in every container.
var initPath string

// TestMain is also the rep's main, in the processes that tests start.
func TestMain(m *testing.M) {
	if file := os.Getenv(repEnv); file != "" {
		if err := runRep(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "muster-init")
	if err == nil {
		initPath = filepath.Join(dir, "muster-init")
		err = image.Compile(context.Background(), "muster/cells/guest/cmd/muster-init", initPath)
	}
	code := 1
	if err == nil {
		code = m.Run()
		err = os.RemoveAll(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runRep(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	cfg := rep.Defaults()
	if err := json.Unmarshal(text, cfg); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg.Ready = func(a net.Addr) { fmt.Println(a) }
	if at := os.Getenv(dieEnv); at != "" {
		cfg.Containerd.Step = func(_ engine.ID, step string, _ time.Duration) {
			if step == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // which does not return
			}
		}
	}
	return rep.Run(context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil)), cfg)
}

// world is a BBS and a containerd, on which reps come and go.
type world struct {
	t      *testing.T
	dir    string
	bbs    *bbsclient.Client
	daemon *privatecontainerd.Daemon
	cfg    *rep.Config
	image  string // of the sample application
	names  atomic.Int32
}

// newWorld makes a world; diskMB, when not 0, bounds the disk of containerd.
func newWorld(t *testing.T, diskMB int) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster") // t.TempDir would be too long for sockets
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	w := &world{t: t, dir: dir}
	if diskMB > 0 {
		root := filepath.Join(dir, "c", "root")
		check(t, os.MkdirAll(root, 0o711))
		check(t, syscall.Mount("tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=%dm", diskMB)))
		t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) }) // Stop has done it unless the test failed early
	}
	w.openContainerd()
	w.image = filepath.Join(dir, "hello.tar")
	check(t, image.Hello(t.Context(), w.image))
	ca, err := identity.OpenCA(filepath.Join(dir, "certs"))
	check(t, err)
	for _, id := range []identity.ID{
		{Role: identity.BBS}, {Role: identity.Auctioneer}, {Role: identity.Operator}, {Role: identity.Rep, Cell: cellID},
	} {
		_, err := ca.Issue(id)
		check(t, err)
	}
	address := w.startBBS()
	w.bbs = bbsclient.New(w.dial(address, identity.Operator, identity.BBS))
	w.cfg = w.config(address)
	t.Cleanup(w.remove)
	return w
}

func (w *world) openContainerd() {
	w.t.Helper()
	var err error
	w.daemon, err = privatecontainerd.Open(context.Background(), privatecontainerd.Config{Dir: filepath.Join(w.dir, "c")})
	check(w.t, err)
}

func (w *world) files(role identity.Role) identity.Files {
	id := identity.ID{Role: role}
	if role == identity.Rep {
		id.Cell = cellID
	}
	return identity.FilesOf(filepath.Join(w.dir, "certs"), id)
}

func (w *world) dial(address string, as, to identity.Role) *grpc.ClientConn {
	w.t.Helper()
	c, err := w.files(as).Client(to)
	check(w.t, err)
	conn, err := daemon.DialGRPC(address, c)
	check(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

func (w *world) config(bbsAddress string) *rep.Config {
	cfg := rep.Defaults()
	cfg.DebugAddress = ""
	cfg.TLS = w.files(identity.Rep)
	cfg.CellID, cfg.Zone = cellID, "z1"
	cfg.ListenAddress, cfg.ExternalAddress, cfg.BBSAddress = "127.0.0.1:0", "127.0.0.1", bbsAddress
	cfg.MemoryMB, cfg.DiskMB, cfg.MaxContainers = "2048", "4096", 20
	cfg.PortRange = "27000-27999"
	cfg.GracefulInterval = daemon.Duration(time.Second)
	cfg.ReapInterval, cfg.CompareInterval = daemon.Duration(2*time.Second), daemon.Duration(2*time.Second)
	cfg.CheckInterval = daemon.Duration(200 * time.Millisecond)
	c := &cfg.Containerd
	c.InitPath = initPath
	name := fmt.Sprintf("mcell-%d", os.Getpid())
	c.Address, c.Namespace, c.StateDir = w.daemon.Address, name, filepath.Join(w.dir, "state")
	c.ImageDir, c.CgroupParent = w.dir, "/muster-test/"+name
	c.Bridge, c.Subnet = fmt.Sprintf("mcell%d", os.Getpid()%100000), fmt.Sprintf("10.%d.250.0/24", 100+os.Getpid()%100)
	return cfg
}

// startBBS runs a BBS in this process until the test ends.
func (w *world) startBBS() string {
	w.t.Helper()
	cfg := bbs.Defaults()
	cfg.DebugAddress, cfg.ListenAddress = "", "127.0.0.1:0"
	cfg.TLS = w.files(identity.BBS)
	cfg.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	cfg.DatabaseURL = daemon.Secret(pgtest.Database(w.t, nil))
	cfg.DatabaseConnections = 8
	ready := make(chan net.Addr, 1)
	cfg.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bbs.Run(ctx, slog.New(slog.DiscardHandler), cfg) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("BBS ended: %v", err)
		}
	})
	select {
	case a := <-ready:
		return a.String()
	case err := <-done:
		w.t.Fatalf("BBS did not start: %v", err)
	case <-time.After(patience):
		w.t.Fatal("BBS did not start")
	}
	return ""
}

// cell is one life of the rep.
type cell struct {
	w      *world
	cmd    *exec.Cmd
	client *repclient.Client
	ended  chan struct{} // closed when the process is gone
}

// startRep starts a rep, which kills itself at the end of a step of the engine, if one is named.
func (w *world) startRep(dieAt string) *cell {
	w.t.Helper()
	text, err := json.Marshal(w.cfg)
	check(w.t, err)
	file := filepath.Join(w.dir, "rep.json")
	check(w.t, os.WriteFile(file, text, 0o600))
	self, err := os.Executable()
	check(w.t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), repEnv+"="+file, dieEnv+"="+dieAt)
	cmd.Stderr = w.t.Output()
	out, err := cmd.StdoutPipe()
	check(w.t, err)
	check(w.t, cmd.Start())
	c := &cell{w: w, cmd: cmd, ended: make(chan struct{})}
	w.t.Cleanup(c.kill)
	address, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // it is killed
	}()
	if err != nil {
		w.t.Fatalf("the rep did not start: %v", err)
	}
	c.client = repclient.New(w.dial(strings.TrimSpace(address), identity.Auctioneer, identity.Rep))
	return c
}

// kill ends the rep as a crash does.
func (c *cell) kill() {
	_ = c.cmd.Process.Kill() // it may be gone
	<-c.ended
}

// perform gives a slot to the cell, as the auctioneer does, and tells whether it was accepted; a rep
// that dies meanwhile is no error.
func (c *cell) perform(d lrp.Desired) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	refused, err := c.client.Perform(ctx, cellID, []cells.Instance{{
		Key:       lrp.Key{Slot: lrp.Slot{Process: d.Process}, Domain: d.Domain},
		Resources: cells.Resources{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, Containers: 1}, RootFS: d.RootFS,
	}}, nil)
	return err == nil && len(refused) == 0
}

// desire wants one instance of the sample application.
func (w *world) desire(change func(*lrp.Desired)) lrp.Desired {
	w.t.Helper()
	d := lrp.Desired{
		Process: lrp.ProcessGUID(fmt.Sprintf("app-%d", w.names.Add(1))), Domain: "tests", Instances: 1,
		RootFS: "oci-archive://" + w.image, MemoryMB: 64, DiskMB: 64,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "test"}},
		RunInfo: lrp.RunInfo{
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app"}},
			Ports:  []uint32{8080}, LogSource: "APP", StartTimeoutMS: int64(patience / time.Millisecond),
			Check: &lrp.CheckDefinition{Checks: []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: 8080, Path: "/healthz"}}}},
		},
	}
	if change != nil {
		change(&d)
	}
	check(w.t, w.bbs.Desire(w.t.Context(), d))
	return d
}

// actual returns the record of the only slot of a process.
func (w *world) actual(d lrp.Desired) (lrp.Actual, bool) {
	w.t.Helper()
	list, _, err := w.bbs.Actuals(w.t.Context(), bbsclient.ActualFilter{Process: d.Process})
	check(w.t, err)
	if len(list) > 1 {
		w.t.Errorf("%d records of one slot: %+v", len(list), list)
	}
	if len(list) == 0 {
		return lrp.Actual{}, false
	}
	return list[0], true
}

// settle places the slot whenever it is to be placed, until it is RUNNING.
func (w *world) settle(c *cell, d lrp.Desired) lrp.Actual {
	w.t.Helper()
	var last lrp.Actual
	w.until(fmt.Sprintf("%s RUNNING", d.Process), func() bool {
		last, _ = w.actual(d)
		if last.State == lrp.Unclaimed {
			c.perform(d)
		}
		return last.State == lrp.Running
	})
	return last
}

// drop removes a process and waits until the cell has nothing of it.
func (w *world) drop(c *cell, d lrp.Desired) {
	w.t.Helper()
	check(w.t, w.bbs.RemoveDesired(w.t.Context(), d.Process))
	w.until("an empty cell", func() bool {
		_, recorded := w.actual(d)
		s, err := c.client.State(w.t.Context())
		check(w.t, err)
		for _, i := range s.Instances {
			if i.Key.Process == d.Process {
				return false
			}
		}
		return !recorded
	})
}

// until looks at something until it is so.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	timeout := time.After(patience)
	for !so() {
		select {
		case <-ticker.C:
		case <-timeout:
			list, _, err := w.bbs.Actuals(w.t.Context(), bbsclient.ActualFilter{})
			w.t.Fatalf("never seen: %s; records %+v, %v; the machine holds:\n%s", what, list, err, strings.Join(w.traces(), "\n"))
		}
	}
}

// page asks an instance through its host port.
func page(a lrp.Actual, path string) (string, error) {
	if len(a.NetInfo.Ports) == 0 {
		return "", fmt.Errorf("instance %s has no ports", a.Instance)
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(fmt.Sprintf("http://%s:%d%s", a.NetInfo.Address, a.NetInfo.Ports[0].HostPort, path))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// answers checks that the instance of the record is the one that answers on its port.
func (w *world) answers(a lrp.Actual) {
	w.t.Helper()
	text, err := page(a, "/")
	if err != nil || !strings.Contains(text, "instance "+string(a.Instance)) {
		w.t.Errorf("instance %s answers %q, %v", a.Instance, text, err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
