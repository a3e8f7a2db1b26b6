package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/cells/guest/record"
	"muster/cells/step"
)

// program is the file of the init, which TestMain builds.
var program string

func TestMain(m *testing.M) {
	if cause := os.Getenv("TEST_PANIC"); cause != "" {
		panicInGuard(cause)
	}
	dir, err := os.MkdirTemp("", "muster-init-")
	if err == nil {
		program = filepath.Join(dir, "muster-init")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", program, "./cmd/muster-init").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the init:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience bounds every wait of a test.
const patience = 20 * time.Second

// box is an init at work.
type box struct {
	t      testing.TB
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{}
	once   sync.Once
	before []string // shell commands that run as the first process before it becomes the init
	log    *os.File // nil: a file
	prefix string   // command that executes the init
}

// newBox prepares an init with a program.
func newBox(t testing.TB, p step.Program) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	check(t, os.Chmod(b.dir, 0o700))
	check(t, os.Mkdir(filepath.Join(b.dir, "inbox"), 0o700))
	b.write("program.json", encode(t, p))
	return b
}

// start starts the init as the first process of a pid namespace with mounts of its own.
func (b *box) start() *box {
	b.t.Helper()
	script := append([]string{"set -e", "mount --make-rprivate /", "mount -t proc proc /proc"}, b.before...)
	script = append(script, fmt.Sprintf("exec %s %s %s", b.prefix, program, b.dir))
	cmd := exec.Command("/bin/sh", "-c", strings.Join(script, "\n"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	return b.launch(cmd)
}

// startPlain starts the init as an ordinary process.
func (b *box) startPlain() *box {
	b.t.Helper()
	return b.launch(exec.Command(program, b.dir))
}

func (b *box) launch(cmd *exec.Cmd) *box {
	b.t.Helper()
	b.cmd = cmd
	cmd.Env = append(os.Environ(), "OF_THE_INIT=secret")
	events := b.open("events")
	defer events.Close()
	log := b.log
	if log == nil {
		log = b.open("log")
		defer log.Close()
	}
	cmd.Stdout, cmd.Stderr = log, events
	check(b.t, cmd.Start())
	go func() {
		_ = cmd.Wait()
		close(b.ended)
	}()
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-b.ended
	})
	return b
}

func (b *box) open(name string) *os.File {
	b.t.Helper()
	file, err := os.OpenFile(filepath.Join(b.dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	check(b.t, err)
	return file
}

// write puts a file into the directory as the cell does it.
func (b *box) write(name string, content []byte) {
	b.t.Helper()
	draft := filepath.Join(b.dir, "draft")
	check(b.t, os.WriteFile(draft, content, 0o600))
	check(b.t, os.Rename(draft, filepath.Join(b.dir, name)))
}

func (b *box) signal(s syscall.Signal) {
	b.t.Helper()
	check(b.t, b.cmd.Process.Signal(s))
}

// wait waits for the end of the init and returns its status.
func (b *box) wait() int {
	b.t.Helper()
	select {
	case <-b.ended:
		return b.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		b.t.Fatalf("the init does not end; events %v, log:\n%s", b.events(), strings.Join(b.lines(), "\n"))
		return -1
	}
}

// result waits for the end and returns how the program ended.
func (b *box) result() step.Result {
	b.t.Helper()
	code := b.wait()
	all := b.events()
	if len(all) == 0 || all[len(all)-1].Name != step.Ended {
		b.t.Fatalf("status %d without an event that says so: %v", code, all)
	}
	r := all[len(all)-1].Result
	if code != 0 && code != Broken {
		b.t.Errorf("status %d of an init that told %+v", code, r)
	}
	return r
}

func (b *box) events() []step.Event {
	b.t.Helper()
	var all []step.Event
	for line := range bytes.Lines(b.read("events")) {
		e, err := record.ParseEvent(line)
		check(b.t, err)
		all = append(all, e)
	}
	return all
}

func (b *box) names() []step.EventName {
	b.t.Helper()
	var names []step.EventName
	for _, e := range b.events() {
		names = append(names, e.Name)
	}
	return names
}

func (b *box) records() []record.Record {
	b.t.Helper()
	var all []record.Record
	for line := range bytes.Lines(b.read("log")) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // on its way
		}
		r, err := record.Parse(line)
		check(b.t, err)
		all = append(all, r)
	}
	return all
}

// lines are the texts of the log.
func (b *box) lines() []string {
	b.t.Helper()
	var lines []string
	for _, r := range b.records() {
		lines = append(lines, r.Text)
	}
	return lines
}

func (b *box) read(name string) []byte {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	check(b.t, err)
	return text
}

// awaitLine waits until the log has a line.
func (b *box) awaitLine(line string) {
	b.t.Helper()
	b.await(line, func() bool { return slices.Contains(b.lines(), line) })
}

func (b *box) awaitEvent(name step.EventName) {
	b.t.Helper()
	b.await(string(name), func() bool { return slices.Contains(b.names(), name) })
}

func (b *box) await(what string, there func() bool) {
	b.t.Helper()
	if !poll(there) {
		b.t.Fatalf("no %s; events %v, log:\n%s", what, b.names(), strings.Join(b.lines(), "\n"))
	}
}

// poll asks until something is there; it tells whether it came to be.
func poll(there func() bool) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !there(); {
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
	return true
}

// sh is an action that runs a shell script.
func sh(script string) *lrp.Action {
	return &lrp.Action{Run: &lrp.RunAction{Path: "/bin/sh", Args: []string{"-c", script}, User: "root", Dir: "/"}}
}

// plan is a program of one action without limits.
func plan(a *lrp.Action) step.Program {
	return step.Program{Action: a, Source: "APP", Graceful: 10 * time.Second, LogBytes: -1}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	check(t, err)
	return text
}
