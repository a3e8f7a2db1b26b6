package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/step"
)

func TestExit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script string
		code   int
	}{{"exit 0", 0}, {"exit 7", 7}, {"kill -TERM $$", 143}, {"kill -KILL $$", 137}, {"kill -SEGV $$", 139}} {
		b := newBox(t, plan(sh(c.script))).start()
		want := step.Result{}
		if c.code != 0 {
			want = step.Result{Failed: true, Code: c.code, Reason: fmt.Sprintf("APP: Exited with status %d", c.code)}
		}
		if diff := cmp.Diff(want, b.result()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.script, diff)
		}
		if diff := cmp.Diff([]string{fmt.Sprintf("Exit status %d", c.code)}, b.lines()); diff != "" {
			t.Errorf("%s: log (-want +got):\n%s", c.script, diff)
		}
		if diff := cmp.Diff([]step.EventName{step.Begun, step.Ready, step.Ended}, b.names()); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", c.script, diff)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		user, path string
		want       []string
	}{
		{"daemon", "PATH=/sbin", []string{"A=action", "B=last", "C=1", "HOME=/usr/sbin", "PATH=/sbin", "PWD=/dev/shm/there", "USER=daemon"}},
		{"", "X=", []string{"A=action", "B=last", "C=1", "HOME=/root", "PATH=" + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PWD=/dev/shm/there", "USER=root", "X="}},
		{"4242:77", "X=", []string{"A=action", "B=last", "C=1", "HOME=/", "PATH=" + "/usr/local/bin:/usr/bin:/bin", "PWD=/dev/shm/there", "USER=4242:77", "X="}},
	} {
		p := plan(&lrp.Action{Run: &lrp.RunAction{
			Path: "/bin/sh", Args: []string{"-c", "exec /usr/bin/env"}, User: c.user, Dir: "/dev/shm/there",
			Env: []lrp.EnvVar{{Name: "A", Value: "action"}, {Name: "B", Value: "action"}},
		}})
		p.Env, p.LastEnv = []string{"A=program", "B=program", "C=0", "C=1", c.path}, []string{"B=last"}
		b := newBox(t, p)
		b.before = overlay
		got := b.start()
		got.result()
		lines := slices.DeleteFunc(got.lines(), func(l string) bool { return strings.HasPrefix(l, "Exit status") })
		slices.Sort(lines)
		if diff := cmp.Diff(c.want, lines); diff != "" {
			t.Errorf("user %q (-want +got):\n%s", c.user, diff)
		}
	}
}

// overlay gives the box places to write to that go with it.
var overlay = []string{
	"mount -t tmpfs none /dev/shm", "mkdir /dev/shm/etc",
	"cp /etc/passwd /etc/group /dev/shm/etc/", "mount --bind /dev/shm/etc /etc",
}

func TestAccount(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(&lrp.Action{Run: &lrp.RunAction{
		Path: "sh", Dir: "/dev/shm/made/a", User: "tester", VolumeMountedFiles: []lrp.File{{Path: "db/password", Content: "secret\n"}, {Path: "/top", Content: "top\n"}},
		Args: []string{"-c", `id -u; id -g; id -G; pwd; stat -c %u:%g:%a . ..; umask; grep -h ^Cap[EIA] /proc/self/status
cd /etc/cf-service-bindings; stat -c %u:%g:%a . db db/password; cat db/password top; echo x >db/password; echo x >/dev/stdout`},
	}}))
	b.before = append(slices.Clone(overlay), "echo tester:x:4711:4712::/nowhere: >>/etc/passwd", "echo more:x:4713:tester >>/etc/group")
	b.start().result()
	want := []string{
		"4711", "4712", "4712 4713", "/dev/shm/made/a", "4711:4712:755", "4711:4712:755", "0022",
		"CapInh:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		"0:0:755", "0:0:755", "0:4712:440", "secret", "top", "sh: 2: cannot create db/password: Permission denied", "x", "Exit status 0",
	}
	if diff := cmp.Diff(want, sortedTail(b.lines(), want)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// sortedTail puts lines of the two streams, whose order is open, into the wanted order.
func sortedTail(lines, want []string) []string {
	slices.SortStableFunc(lines, func(a, b string) int { return slices.Index(want, a) - slices.Index(want, b) })
	return lines
}

func TestUnstartable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no program"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "script"), []byte("#!/no/interpreter\n"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("x"), 0o644))
	for _, c := range []struct{ path, dir, user, want string }{
		{"/no/such", "/", "root", `program "/no/such" in directory "/": there is no such file`},
		{"no-such", "/", "root", `program "no-such" in directory "/": it is not in the PATH of the process`},
		{"", "/", "root", `program "" in directory "/": there is no such file`},
		{dir, "/", "root", fmt.Sprintf("program %q in directory \"/\": it is a directory", dir)},
		{dir + "/text", "/", "root", fmt.Sprintf("program %q in directory \"/\": it is not a program for this machine", dir+"/text")},
		{dir + "/script", "/", "root", fmt.Sprintf("program %q in directory \"/\": the interpreter that it names does not exist", dir+"/script")},
		{dir + "/plain", "/", "root", fmt.Sprintf("program %q in directory \"/\": the user may not execute it", dir+"/plain")},
		{dir + "/plain/x", "/", "root", fmt.Sprintf("program %q in directory \"/\": a part of its path is no directory", dir+"/plain/x")},
		{"sh", "here", "root", `directory "here": want an absolute path`},
		{"sh", "/etc/passwd/x", "root", `directory "/etc/passwd/x": not a directory`},
		{"sh", "/", "stranger", `user "stranger": unable to find user stranger: no matching entries in passwd file: name one of /etc/passwd in the container, or use numbers, uid or uid:gid`},
	} {
		b := newBox(t, plan(&lrp.Action{Run: &lrp.RunAction{Path: c.path, Dir: c.dir, User: c.user}})).start()
		if diff := cmp.Diff(step.Result{Failed: true, Reason: c.want, Code: 1}, b.result()); diff != "" {
			t.Errorf("%s in %s as %s (-want +got):\n%s", c.path, c.dir, c.user, diff)
		}
		if diff := cmp.Diff([]string{"failed-creating-process: " + c.want}, b.lines()); diff != "" {
			t.Errorf("%s in %s as %s: log (-want +got):\n%s", c.path, c.dir, c.user, diff)
		}
	}
}

// What a process inherits is what it was given, and nothing of the init.
func TestInheritance(t *testing.T) {
	t.Parallel()
	nofile := uint64(321)
	a := sh(`ls /proc/self/fd; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep ^Sig[BI] /proc/self/status
cut -d' ' -f 1,5,6 /proc/$$/stat; readlink /proc/$$/fd/0`)
	a.Run.Nofile = &nofile
	b := newBox(t, plan(a))
	b.before = []string{"exec 7</dev/null", "echo 500 >/proc/self/oom_score_adj", "trap '' HUP"}
	b.start().result()
	got := b.lines()
	pid := strings.Fields(got[9])
	if len(pid) != 3 || pid[0] != pid[1] || pid[0] != pid[2] {
		t.Errorf("pid, group and session are %q, want them equal", pid)
	}
	got[9] = ""
	// Signals 32 to 34 are those of the C library: who started the test may have them ignored, and Go leaves them so.
	var ignored uint64
	_, err := fmt.Sscanf(got[8], "SigIgn:\t%x", &ignored)
	check(t, err)
	got[8] = fmt.Sprintf("SigIgn:\t%016x", ignored&^(7<<31))
	want := []string{"0", "1", "2", "3", "321", "321", "0", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000",
		"", "/dev/null", "Exit status 0"} // 3 is that of ls
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNofileByDefault(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(sh("ulimit -n"))).start()
	b.result()
	if got := b.lines(); got[0] != fmt.Sprint(defaultNofile) {
		t.Errorf("%s open files, want %d", got[0], defaultNofile)
	}
}

// A process of the container learns nothing from the init, also one of root, as containers have it: without the capabilities to look into
// others.
func TestPrivate(t *testing.T) {
	t.Parallel()
	private(t, "nobody", "kill -KILL 1; kill -TERM 1; echo over")
	private(t, "root", "kill -KILL 1; echo over")
}

func private(t *testing.T, user, script string) {
	t.Helper()
	a := sh("cat /proc/1/environ; ls -l /proc/1/fd/0; cat /proc/1/maps | head -1; " + script)
	a.Run.User = user
	b := newBox(t, plan(a))
	b.prefix = "setpriv --bounding-set=-sys_ptrace,-sys_admin,-perfmon"
	b.start()
	if r := b.result(); r.Failed {
		t.Errorf("%+v", r)
	}
	got := b.lines()
	if !slices.Contains(got, "over") || slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "OF_THE_INIT") }) {
		t.Errorf("log: %q", got)
	}
	if n := strings.Count(strings.Join(got, "\n"), "denied"); n < 3 {
		t.Errorf("%d accesses are denied, want 3 or more: %q", n, got)
	}
}

func TestGraceful(t *testing.T) {
	t.Parallel()
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		// The child gets no signal: it outlives the shell, and is ended with the container.
		b := newBox(t, plan(sh("trap 'echo stopping; exit 9' TERM; sh -c 'trap \"echo no\" TERM; sleep 60' & echo up; wait"))).start()
		b.awaitLine("up")
		b.signal(syscall.SIGTERM)
		if diff := cmp.Diff(step.Result{Failed: true, Code: 1, Reason: "cancelled"}, b.result()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"up", "stopping", "Exit status 9"}, b.lines()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("by force", func(t *testing.T) {
		t.Parallel()
		p := plan(sh("trap '' TERM; echo up; while :; do sleep 1; done"))
		p.Graceful = 300 * time.Millisecond
		b := newBox(t, p).start()
		b.awaitLine("up")
		begin := time.Now()
		b.signal(syscall.SIGTERM)
		if r := b.result(); r.Reason != "exceeded graceful shutdown interval" {
			t.Errorf("%+v", r)
		}
		if took := time.Since(begin); took < p.Graceful {
			t.Errorf("killed after %s, want %s", took, p.Graceful)
		}
		if diff := cmp.Diff([]string{"up", "Exit status 137 (exceeded 300ms graceful shutdown interval)"}, b.lines()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestSignalsThatMeanNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(sh("echo up; read x; sleep 0.3; kill -PIPE $$"))).start()
	b.awaitLine("up")
	for _, s := range ignored {
		b.signal(s.(syscall.Signal))
	}
	if r := b.result(); r.Code != 128+int(syscall.SIGPIPE) {
		t.Errorf("%+v, want the init to stay and the process to be ended by its own SIGPIPE", r)
	}
}

func TestZombies(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(sh(`for i in 1 2 3 4 5 6 7 8 9 10; do sh -c 'sleep 0.1 &' ; done
sleep 0.4; cat /proc/[0-9]*/stat | grep -c ' Z '; exit 0`))).start()
	b.result()
	if got := b.lines(); got[0] != "0" {
		t.Errorf("%s zombies", got[0])
	}
}

// Nothing is left when the init has ended, also where it is not the first process of a namespace.
func TestOrphansEnd(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(sh(`for i in 1 2 3; do setsid sh -c 'setsid sleep 61.25 & sleep 61.25' & done; sleep 0.2; echo left`))).startPlain()
	if r := b.result(); r.Failed {
		t.Errorf("%+v", r)
	}
	if !slices.Contains(b.lines(), "left") {
		t.Errorf("log: %q", b.lines())
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(t, err)
	for _, f := range files {
		if text, _ := os.ReadFile(f); strings.HasPrefix(string(text), "sleep\x0061.25") {
			t.Errorf("%s is left", f)
		}
	}
}

func TestBroken(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*box){
		"no program":  func(b *box) { check(t, os.Remove(filepath.Join(b.dir, "program.json"))) },
		"no JSON":     func(b *box) { b.write("program.json", []byte("{")) },
		"a directory": func(b *box) { check(t, os.Rename(filepath.Join(b.dir, "inbox"), filepath.Join(b.dir, "program.json"))) },
	} {
		b := newBox(t, plan(sh("exit 0")))
		if name == "a directory" {
			check(t, os.Remove(filepath.Join(b.dir, "program.json")))
		}
		spoil(b)
		r := b.start().result()
		if r.Code != Broken || !r.Failed || !strings.HasPrefix(r.Reason, "init of the container: program of the container") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
