package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/internal/daemon"
	"muster/internal/identity"
)

const (
	// patience bounds every wait; a healthy machine needs a fraction of it.
	patience = 60 * time.Second
	// lookEvery is the pause between two looks at something that cannot tell us.
	lookEvery = 10 * time.Millisecond
	portBase  = 28000
	// httpPort and bbsPort are where --port-base puts router and BBS.
	httpPort       = portBase
	bbsPort        = portBase + 3
	containerPorts = 62000
	stackName      = "mworld"
	subnets        = "10.252"
)

// programs builds all binaries once, the way make does.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "muster-programs-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./bbs/cmd/bbs", "./auctioneer/cmd/auctioneer", "./rep/cmd/rep",
		"./route-emitter/cmd/route-emitter", "./gorouter/cmd/gorouter", "./cli/cmd/muster", "./integration/apps/hello", "./cells/guest/cmd/muster-init")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// stack is a whole Muster of its own on this machine.
type stack struct {
	dir, bin string
}

// newStack returns a stack that is not up, and takes it down after the test.
func newStack(t *testing.T) *stack {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests start containers: run them as root")
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/lib", "muster-world-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another account
		t.Fatal(err)
	}
	s := &stack{dir: dir, bin: bin}
	t.Cleanup(func() {
		if t.Failed() {
			s.showLogs(t)
		}
		s.must(t, "down")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stack) upArgs(more ...string) []string {
	return append([]string{"up", "--name", stackName, "--subnets", subnets, "--port-base", strconv.Itoa(portBase),
		"--http-port", strconv.Itoa(httpPort), "--port", "containers=" + strconv.Itoa(containerPorts)}, more...)
}

// command returns a call of the operator's program on this stack.
func (s *stack) command(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(s.bin, "muster"), append([]string{"--state-dir", s.dir}, args...)...)
}

// muster runs the operator's program and returns what it printed, and its error with what it said.
func (s *stack) muster(args ...string) (string, error) {
	var out, problem bytes.Buffer
	cmd := s.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("muster %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), problem.String())
	}
	return out.String(), nil
}

func (s *stack) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.muster(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refuses runs the operator's program and checks that it fails and says all of the given.
func (s *stack) refuses(t *testing.T, want []string, args ...string) {
	t.Helper()
	_, err := s.muster(args...)
	if err == nil {
		t.Errorf("muster %s succeeded", strings.Join(args, " "))
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\ndoes not say %q", err, w)
		}
	}
}

func (s *stack) showLogs(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(s.dir, "log", "*.log"))
	if err != nil {
		t.Error(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		const most = 4000
		t.Logf("== %s\n%s", filepath.Base(name), text[max(0, len(text)-most):])
	}
}

// client returns a client of the BBS with the operator's certificate.
func (s *stack) client(t *testing.T) *bbsclient.Client {
	t.Helper()
	tlsConfig, err := identity.FilesOf(filepath.Join(s.dir, "certs"), identity.ID{Role: identity.Operator}).Client(identity.BBS)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := daemon.DialGRPC(fmt.Sprintf("127.0.0.1:%d", bbsPort), tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return bbsclient.New(conn)
}

// instance is what "muster lrps --json" says of an instance.
type instance struct {
	Index        int32  `json:"index"`
	State        string `json:"state"`
	InstanceGUID string `json:"instance_guid"`
	CellID       string `json:"cell_id"`
	CrashCount   int32  `json:"crash_count"`
	CrashReason  string `json:"crash_reason"`
}

// instances returns the instances of an application, by index.
func (s *stack) instances(name string) (map[int32]instance, error) {
	out, err := s.muster("lrps", name, "--json")
	if err != nil {
		return nil, err
	}
	var view struct {
		Actual []instance `json:"actual_lrps"`
	}
	if err := json.Unmarshal([]byte(out), &view); err != nil {
		return nil, fmt.Errorf("%w in %s", err, out)
	}
	found := map[int32]instance{}
	for _, a := range view.Actual {
		found[a.Index] = a
	}
	return found, nil
}

func (s *stack) mustInstances(t *testing.T, name string) map[int32]instance {
	t.Helper()
	found, err := s.instances(name)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// eventually waits until look returns nil.
func eventually(t *testing.T, what string, look func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not after %v: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

var browser = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// get asks the router for a path of a host.
func get(ctx context.Context, host, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", httpPort, path), nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	res, err := browser.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// answers waits until a host answers with a status.
func answers(t *testing.T, host string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s answers %d", host, want), func(ctx context.Context) error {
		status, body, err := get(ctx, host, "/")
		if err != nil {
			return err
		}
		if status != want {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
}

// who returns the instances that answer a number of requests; every one must be answered.
func who(t *testing.T, host string, requests int) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range requests {
		status, body, err := get(t.Context(), host, "/")
		if err != nil || status != http.StatusOK {
			t.Fatalf("GET %s: %d, %v: %s", host, status, err, body)
		}
		_, guid, ok := strings.Cut(strings.TrimSpace(body), "instance ")
		if !ok {
			t.Fatalf("GET %s answered %q", host, body)
		}
		seen[guid]++
	}
	return seen
}

// pidOf returns the process of a part of the stack, as "muster status --json" says.
func (s *stack) pidOf(t *testing.T, part string) int {
	t.Helper()
	out, err := s.muster("status", "--json")
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var view []struct {
		Part string `json:"part"`
		PID  int    `json:"pid"`
	}
	if err := json.Unmarshal([]byte(out), &view); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, v := range view {
		if v.Part == part && v.PID > 0 {
			return v.PID
		}
	}
	t.Fatalf("no process for %s in %s", part, out)
	return 0
}
