package guest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/step"
)

// failed is a result with a status and a reason.
func failed(code int, reason string) step.Result {
	return step.Result{Failed: true, Code: code, Reason: reason}
}

// The trees of actions are those of package step; here real processes run in them.
func TestTrees(t *testing.T) {
	t.Parallel()
	all := func(a ...*lrp.Action) []*lrp.Action { return a }
	daemon := sh("trap 'exit 0' TERM; while :; do sleep 0.05; done")
	for _, c := range []struct {
		name string
		p    step.Program
		want step.Result
	}{
		{"parallel", plan(&lrp.Action{Parallel: &lrp.ParallelAction{Actions: all(sh("exit 2"), sh("sleep 0.2; exit 3"), sh("exit 0"))}}),
			failed(2, "APP: Exited with status 2; APP: Exited with status 3")},
		{"codependent", plan(&lrp.Action{Codependent: &lrp.CodependentAction{Actions: all(sh("exit 0"), daemon)}}), failed(1, "Codependent step exited")},
		{"serial", plan(&lrp.Action{Serial: &lrp.SerialAction{Actions: all(sh("exit 0"), sh("exit 5"), sh("exit 6"))}}), failed(5, "APP: Exited with status 5")},
		{"timeout", plan(&lrp.Action{Timeout: &lrp.TimeoutAction{Action: daemon, TimeoutMS: 200}}), failed(1, "exceeded 200ms timeout")},
		{"try", plan(&lrp.Action{Try: &lrp.TryAction{Action: sh("exit 9")}}), step.Result{}},
		{"setup fails", step.Program{Setup: sh("exit 8"), Action: daemon, LogBytes: -1}, failed(8, "LOG: Exited with status 8")},
		{"a sidecar ends", step.Program{Action: daemon, Sidecars: all(sh("exit 0")), Graceful: patience}, failed(1, "cancelled")},
		{"a sidecar fails", step.Program{Action: daemon, Sidecars: all(sh("sleep 0.1; exit 7")), Graceful: patience, Source: "S"},
			failed(7, "S: Exited with status 7")},
		{"a daemon whose monitor fails", step.Program{
			Action: sh("exit 0"), Graceful: patience,
			Monitor: &step.Monitor{Action: sh("mkdir /dev/shm/x || { echo it is there; false; }"), StartEvery: time.Second, Every: 50 * time.Millisecond},
		}, failed(1, "Instance became unhealthy: mkdir: cannot create directory '/dev/shm/x': File exists\nit is there")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, c.p)
			b.before = []string{"mount -t tmpfs none /dev/shm", "export LC_ALL=C"}
			got := b.start().result()
			if strings.Contains(c.name, "monitor") { // the order of two streams is open
				got.Reason, c.want.Reason = sorted(got.Reason), sorted(c.want.Reason)
				got.Code, c.want.Code = 0, 0
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\nlog: %q", diff, b.lines())
			}
		})
	}
}

func sorted(text string) string {
	words := strings.FieldsFunc(strings.NewReplacer("‘", "'", "’", "'", "Instance became unhealthy: ", "").Replace(text), func(r rune) bool { return r == '\n' })
	slices.Sort(words)
	return strings.Join(words, "\n")
}

func TestResultFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, user, script string
		want               step.Result
	}{
		{"as it is", "root", "printf 'a\nb' >/dev/shm/out", step.Result{Output: "a\nb"}},
		{"as large as may be", "root", "head -c 51200 /dev/zero | tr '\\0' x >/dev/shm/out", step.Result{Output: strings.Repeat("x", step.MaxResult)}},
		{"too large", "root", "head -c 51201 /dev/zero >/dev/shm/out", failed(1, "result file is too large (over 51200 bytes)")},
		{"missing", "root", "exit 0", failed(1, "failed to fetch result")},
		{"no file", "root", "mkfifo /dev/shm/out", failed(1, "failed to fetch result")},
		{"a link to what the user may not read", "nobody", "ln -s /etc/shadow /dev/shm/out", failed(1, "failed to fetch result")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := plan(sh(c.script))
			p.Action.Run.User, p.ResultFile = c.user, "/dev/shm/out"
			b := newBox(t, p)
			b.before = []string{"mount -t tmpfs none /dev/shm"}
			if diff := cmp.Diff(c.want, b.start().result()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// BenchmarkStart takes the time from the start of the init to the first output of its process, and to its own end.
func BenchmarkStart(b *testing.B) {
	var first, whole time.Duration
	for b.Loop() {
		box := newBox(b, plan(&lrp.Action{Run: &lrp.RunAction{Path: "/bin/echo", Args: []string{"x"}, Dir: "/"}}))
		begin := time.Now()
		box.startPlain()
		<-box.ended
		whole += time.Since(begin)
		first += box.records()[0].At.Sub(begin)
	}
	b.ReportMetric(float64(first.Microseconds())/float64(b.N), "µs-to-output")
	b.ReportMetric(float64(whole.Microseconds())/float64(b.N), "µs-to-end")
}
