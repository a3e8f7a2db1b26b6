package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStatusOfAPart(t *testing.T) {
	t.Parallel()
	s := fresh(t.TempDir())
	well := true
	debug := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !well {
			http.Error(w, "the database is away", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(debug.Close)
	u, err := url.Parse(debug.URL)
	if err != nil {
		t.Fatal(err)
	}
	if s.Ports["bbs-debug"], err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	status := func(up bool, note string) {
		t.Helper()
		running, err := find(s.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), answerTime/10)
		defer cancel()
		st := s.partStatus(ctx, "bbs", running["bbs"])
		if st.Up != up || !strings.Contains(st.Note, note) || note == "" && st.Note != "" || st.Up && st.PID == 0 {
			t.Errorf("%+v, want up %v, a note with %q", st, up, note)
		}
	}
	status(false, "not running; log: "+s.log("bbs"))
	run(t, s.StateDir, "bbs")
	status(true, "")
	well = false
	status(false, "does not answer: "+u.Host+" says 503 Service Unavailable: the database is away")
	run(t, s.StateDir, "bbs")
	status(false, "runs 2 times")
}

// TestAPartThatHangsHangsAlone has the BBS take connections and not answer.
func TestAPartThatHangsHangsAlone(t *testing.T) {
	t.Parallel()
	s := fresh(t.TempDir())
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hung.Close() })
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(well.Close)
	for name, a := range map[string]net.Addr{"bbs-debug": hung.Addr(), "emitter-debug": well.Listener.Addr(), "router-debug": well.Listener.Addr()} {
		s.Ports[name] = a.(*net.TCPAddr).Port
		run(t, s.StateDir, map[string]string{"bbs-debug": "bbs", "emitter-debug": "route-emitter", "router-debug": "gorouter"}[name])
	}
	running, err := find(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	var up []string
	for _, st := range s.status(t.Context(), running) {
		if st.Up {
			up = append(up, st.Part)
		}
	}
	if !slices.Equal(up, []string{"route-emitter", "gorouter"}) {
		t.Errorf("up are %v", up)
	}
}

func TestMissingProgramsAreNamedAtOnce(t *testing.T) {
	t.Parallel()
	u := &upper{Stack: fresh(t.TempDir()), options: UpOptions{BinDir: t.TempDir()}}
	for _, name := range []string{"bbs", "rep", "gorouter", initProgram} {
		if err := os.WriteFile(filepath.Join(u.options.BinDir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := u.programs()
	if err == nil || strings.Count(err.Error(), " is missing: ") != 2 || !strings.Contains(err.Error(), "/auctioneer is missing") || !strings.Contains(err.Error(), "/route-emitter is missing") {
		t.Errorf("error %v, want both that are missing", err)
	}
}

// TestStatusBelievesNoOldPIDFile has the number in PostgreSQL's file belong to somebody else.
func TestStatusBelievesNoOldPIDFile(t *testing.T) {
	t.Parallel()
	s := fresh(t.TempDir())
	if err := os.MkdirAll(s.path("postgres", "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("%d\n%s\n0\n0\n\n\n\nready   \n", os.Getpid(), s.path("postgres", "data"))
	if err := os.WriteFile(s.path("postgres", "data", "postmaster.pid"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := s.postgresStatus(); st.Up || st.PID != 0 || !strings.HasPrefix(st.Note, "not running") {
		t.Errorf("%+v", st)
	}
}

func TestWhyARunningPartIsReplaced(t *testing.T) {
	t.Parallel()
	u := &upper{Stack: fresh(t.TempDir())}
	answers := func(err error) daemonSpec { return daemonSpec{ready: func(context.Context) error { return err }} }
	for _, tc := range []struct {
		digest string
		spec   daemonSpec
		want   string
	}{
		{"now", answers(nil), ""},
		{"before", answers(nil), "new program or settings"},
		{"now", answers(errors.New("no")), "the old one did not answer"},
	} {
		if got := u.whyNot(t.Context(), livePart{Digest: tc.digest}, "now", tc.spec); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.digest, got, tc.want)
		}
	}
}

func TestListenersInTheKernelsTable(t *testing.T) {
	t.Parallel()
	line := func(port, state string) string {
		return "   0: 0100007F:" + port + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
	}
	for text, want := range map[string]string{
		line("1F90", "0A"): "4711", line("1F90", "01"): "", line("1F91", "0A"): "", line("xx", "0A"): "", "  sl  local_address": "",
	} {
		if inode, ok := listener(text, 8080); inode != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v", text, inode, ok)
		}
	}
}

func TestMountsBelow(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // mounting takes root
	}
	dir := t.TempDir()
	var mounted []string
	for _, name := range []string{"a", "a/b c", "-beside"} {
		m := filepath.Join(dir, "stack", name)
		if name == "-beside" {
			m = filepath.Join(dir, "stack"+name)
		}
		if err := os.MkdirAll(m, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", m, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(m, unix.MNT_DETACH) }) // it may be gone
		mounted = append(mounted, m)
	}
	got, err := unmountBelow(filepath.Join(dir, "stack"))
	if want := []string{mounted[1], mounted[0]}; err != nil || !slices.Equal(got, want) {
		t.Errorf("unmounted %q, %v, want the deepest first: %q", got, err, want)
	}
	if left, err := mountsBelow(dir); err != nil || !slices.Equal(left, mounted[2:]) {
		t.Errorf("left are %q, %v, want what is beside", left, err)
	}
}

func TestTailShowsTheLastLines(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(file, []byte("one\ntwo\nthree\nfour\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(file, 2); !slices.Equal(got, []string{"three", "four"}) {
		t.Errorf("got %q", got)
	}
	if got := tail(file, 9); len(got) != 4 {
		t.Errorf("got %q", got)
	}
}

func TestABrokenStackFileSaysTheWayOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "stack.json"), []byte(`{"name":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir); err == nil || !strings.Contains(err.Error(), "stack.json: unexpected end of JSON input: muster down --state-dir "+dir) {
		t.Errorf("error %v", err)
	}
	if s := Describe(dir); s.BBSAddress() != "127.0.0.1:8888" {
		t.Errorf("it is described as %+v", s)
	}
}
