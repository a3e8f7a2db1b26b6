package containerd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"muster/cells/engine"
	"muster/cells/engine/enginetest"
	appimage "muster/integration/apps/image"
	"muster/internal/privatecontainerd"
	"muster/internal/process"
)

// initPath is the program that runs in every container.
var initPath string

// TestMain compiles the init.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "muster-init")
	if err == nil {
		initPath = filepath.Join(dir, "muster-init")
		err = appimage.Compile(context.Background(), "muster/cells/guest/cmd/muster-init", initPath)
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

// stack is a containerd of a test, with a cell on it.
type stack struct {
	dir    string
	daemon *privatecontainerd.Daemon
	cfg    Config
}

// cellNumber tells the cells of this process apart; ports of all of them come from nextPort.
var cellNumber, nextPort atomic.Uint32

// newStack starts a containerd and removes everything of it and of its cell after the test.
func newStack(t testing.TB) *stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster") // t.TempDir would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &stack{dir: dir}
	s.open(t)
	s.cfg = s.config()
	t.Cleanup(func() { s.remove(t) })
	return s
}

func (s *stack) open(t testing.TB) {
	t.Helper()
	var err error
	if s.daemon, err = privatecontainerd.Open(context.Background(), privatecontainerd.Config{Dir: filepath.Join(s.dir, "c")}); err != nil {
		t.Fatal(err)
	}
}

func (s *stack) config() Config {
	n := cellNumber.Add(1)
	name := fmt.Sprintf("mt-%d-%d", os.Getpid(), n)
	cfg := Defaults()
	cfg.Address, cfg.InitPath = s.daemon.Address, initPath
	cfg.Namespace = name
	cfg.StateDir = filepath.Join(s.dir, "state", name)
	cfg.ImageDir = filepath.Join(s.dir, "images")
	cfg.CgroupParent = "/muster-test/" + name
	cfg.Bridge = fmt.Sprintf("mt%d.%d", os.Getpid()%100000, n)
	cfg.Subnet = fmt.Sprintf("10.%d.%d.0/24", 100+os.Getpid()%100, n)
	return cfg
}

func (s *stack) remove(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveAll(ctx); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := privatecontainerd.Stop(ctx, filepath.Join(s.dir, "c")); err != nil {
		t.Error(err)
	}
	for _, left := range [][]string{{"/sys/class/net", s.cfg.Bridge}, {"/sys/fs/cgroup/memory", s.cfg.CgroupParent}} {
		if _, err := os.Stat(filepath.Join(left...)); err == nil {
			t.Errorf("left behind: %s", filepath.Join(left...))
		}
	}
	if rules := natRules(t, s.cfg.Namespace); len(rules) > 0 {
		t.Errorf("left behind: %q", rules)
	}
}

// engine returns a life of an engine on the stack.
func (s *stack) engine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// archive writes an image with the probe and returns its URL.
func (s *stack) archive(t testing.TB, name string, cfg appimage.Config, more ...appimage.File) string {
	t.Helper()
	path := filepath.Join(s.cfg.ImageDir, name)
	if err := os.MkdirAll(s.cfg.ImageDir, 0o755); err != nil {
		t.Fatal(err)
	}
	img, err := appimage.FromFiles(append(probeFiles(t), more...), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := appimage.WriteArchive(path, img); err != nil {
		t.Fatal(err)
	}
	return "oci-archive://" + path
}

// probeFiles are the files of an image with the probe as /bin/probe.
func probeFiles(t testing.TB) []appimage.File {
	t.Helper()
	return append(appimage.Base(), appimage.File{Path: "/bin/probe", Mode: 0o755, Source: build(t, "muster/cells/engine/enginetest/cmd/probe")})
}

// build compiles a static program.
func build(t testing.TB, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	check(t, appimage.Compile(t.Context(), pkg, out))
	return out
}

var appConfig = appimage.Config{Env: []string{"PATH=/usr/bin:/bin", "FROM=image", "BOTH=image"}}

// traces lists what the machine holds because of containers of the cell.
func (s *stack) traces(t testing.TB) []string {
	t.Helper()
	e := s.engine(t)
	ctx := e.scope(context.Background())
	var all []string
	add := func(kind string, names ...string) {
		for _, name := range names {
			all = append(all, kind+" "+name)
		}
	}
	containers, err := e.List(ctx)
	check(t, err)
	for _, c := range containers {
		add("container", string(c.ID))
	}
	check(t, e.snapshots().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			add("snapshot", info.Name)
		}
		return nil
	}))
	leases, err := e.client.LeasesService().List(ctx)
	check(t, err)
	for _, lease := range leases {
		add("lease", lease.ID)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, s.dir) && point != filepath.Join(s.dir, "c/root") {
			add("mount", point)
		}
	}
	for _, pattern := range []string{
		filepath.Join(e.paths.containers(), "*"), filepath.Join(e.paths.netnsDir(), "*"), filepath.Join(e.paths.cniCache(), "results", "*"),
		filepath.Join(e.paths.ipam(), "*", "10.*"), "/sys/fs/cgroup/*" + s.cfg.CgroupParent + "/*/", "/sys/class/net/" + s.cfg.Bridge + "/brif/*",
		filepath.Join(s.dir, "c/state/io.containerd.runtime.v2.task/*/*"), filepath.Join(runcState, s.cfg.Namespace, "*"),
	} {
		found, err := filepath.Glob(pattern)
		check(t, err)
		add("path", found...)
	}
	processes, err := process.All()
	check(t, err)
	for _, args := range processes {
		line := strings.Join(args, " ")
		if strings.Contains(line, s.cfg.Namespace) && (strings.Contains(line, "containerd-shim") || strings.Contains(line, runcState)) {
			add("process", line)
		}
	}
	add("rule", slices.DeleteFunc(natRules(t, s.cfg.Namespace), func(rule string) bool { return strings.Contains(rule, "-A POSTROUTING -s "+s.cfg.Subnet) })...)
	network, err := newNetwork(s.cfg)
	check(t, err)
	mapped, err := network.ports.List()
	check(t, err)
	for _, id := range mapped {
		add("port", string(id))
	}
	ruled, err := e.guard.list()
	check(t, err)
	for _, id := range ruled {
		add("egress", string(id))
	}
	slices.Sort(all)
	return all
}

// natRules returns the rules of the nat table that concern a cell.
func natRules(t testing.TB, namespace string) []string {
	t.Helper()
	out, err := exec.Command("iptables", "-w", "-t", "nat", "-S").Output()
	check(t, err)
	var rules []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, namespace) {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	return rules
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func port() uint16 { return uint16(20000 + os.Getpid()%400*50 + int(nextPort.Add(1))) }

// reach asks the server behind a port over the container's address and over the cell's.
func reach(t *testing.T, c engine.Container, port engine.Port) []string {
	t.Helper()
	out, err := exec.Command("hostname", "-I").Output()
	check(t, err)
	hosts := []string{
		fmt.Sprintf("%s:%d", c.Address, port.Container),
		fmt.Sprintf("127.0.0.1:%d", port.Host),
		fmt.Sprintf("%s:%d", strings.Fields(string(out))[0], port.Host),
	}
	var pages []string
	for _, host := range hosts {
		pages = append(pages, get(t, "http://"+host+"/"))
	}
	return pages
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	check(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	check(t, err)
	return string(text)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	app := s.archive(t, "app.tar", appConfig)
	first := s.engine(t) // the image is there before anything is compared
	if _, err := first.image(first.scope(t.Context()), engine.Spec{RootFS: app}); err != nil {
		t.Fatal(err)
	}
	enginetest.Run(t, func(*testing.T) enginetest.Harness {
		return enginetest.Harness{
			Open: func(t *testing.T) engine.Engine { return s.engine(t) },
			Images: enginetest.Images{
				App: app, Program: "/bin/probe", Missing: "oci-archive://" + filepath.Join(s.cfg.ImageDir, "missing.tar"),
			},
			Port: port, Reach: reach,
			Traces: func(t *testing.T) []string { return s.traces(t) },
		}
	})
}
