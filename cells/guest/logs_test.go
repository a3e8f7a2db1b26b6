package guest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/guest/record"
	"muster/cells/step"
)

func TestLog(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(sh(`printf 'one\r\n\ntwo\rthree\n'; sleep 0.05; echo four >&2; sleep 0.05; printf five; sleep 0.05; printf ' six'`)))
	begin := time.Now()
	b.start().result()
	var got []record.Record
	for _, r := range b.records() {
		if r.At.Before(begin) || r.At.After(time.Now()) {
			t.Errorf("%q was logged at %s", r.Text, r.At)
		}
		r.At = time.Time{}
		got = append(got, r)
	}
	var want []record.Record
	for _, text := range []string{"one", "two", "three", "four", "five six", "Exit status 0"} {
		stream := step.Stdout
		if text == "four" {
			stream = step.Stderr
		}
		want = append(want, record.Record{Stream: stream, Source: "APP", Text: text})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(sh(`for i in $(seq 10000); do printf 'x𝄞€é'; done`))).start()
	b.result()
	got := b.lines()
	whole := strings.Repeat("x𝄞€é", 10000)
	if n := len(got) - 1; n != 2 || strings.Join(got[:n], "") != whole || !strings.HasPrefix(got[1], "x𝄞€é") && len(got[0]) < record.MaxText-3 {
		t.Errorf("%d lines", len(got))
	}
}

func TestSuppressed(t *testing.T) {
	t.Parallel()
	a := sh("echo out; echo err >&2; exit 2")
	a.Run.SuppressLogOutput = true
	b := newBox(t, plan(a)).start()
	if r := b.result(); r.Code != 2 || len(b.lines()) > 0 {
		t.Errorf("%+v, log: %q", r, b.lines())
	}
}

// A child that holds the output open delays nothing, and is heard until its end.
func TestGrandchild(t *testing.T) {
	t.Parallel()
	first := sh("sh -c 'sleep 0.4; echo late' & printf early")
	b := newBox(t, plan(&lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{first, sh("echo next; sleep 0.8")}}})).start()
	b.result()
	if diff := cmp.Diff([]string{"early", "Exit status 0", "next", "late", "Exit status 0"}, b.lines()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// One that writes all the time does not hold up the end either, and all that the process wrote comes before it.
func TestBusyGrandchild(t *testing.T) {
	t.Parallel()
	p := plan(sh("sh -c 'while :; do echo noise; done' & sleep 0.1; echo last; exit 4"))
	b := newBox(t, p).start()
	begin := time.Now()
	if r := b.result(); r.Code != 4 {
		t.Errorf("%+v", r)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("took %s", took)
	}
	got := b.lines()
	last, exit := slices.Index(got, "last"), slices.Index(got, "Exit status 4")
	if last < 0 || exit < last {
		t.Errorf("the last line is number %d, the exit line number %d, of %d", last, exit, len(got))
	}
}

func TestLogLimit(t *testing.T) {
	t.Parallel()
	const notice = "app instance exceeded log rate limit (1000 bytes/sec)"
	p := plan(&lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{sh("echo short"), sh("yes 123456789 | head -c 1000000"), sh("echo dark; sleep 1; echo bright")}}})
	p.LogBytes = 1000
	b := newBox(t, p).start()
	b.result()
	var passed, notices int
	for _, r := range b.records() {
		switch {
		case r.Text == notice && r.Stream == step.Stdout && r.Source == "APP":
			notices++
		case r.Text == "123456789":
			passed++
		}
	}
	got := b.lines()
	if passed < 100 || passed > 111 || notices != 1 || slices.Contains(got, "dark") || !slices.Contains(got, "bright") {
		t.Errorf("%d lines passed, %d notices; log: %q", passed, notices, got[len(got)-5:])
	}
	// Lines of the cell always pass.
	if n := strings.Count(strings.Join(got, "\n"), "Exit status 0"); n != 3 {
		t.Errorf("%d exit lines, want 3", n)
	}
	p.LogBytes = 0
	p.Action = sh("echo x")
	b = newBox(t, p).start()
	b.result()
	if diff := cmp.Diff([]string{"Exit status 0"}, b.lines()); diff != "" {
		t.Errorf("nothing passes (-want +got):\n%s", diff)
	}
}

// A log that nobody reads stops no process.
func TestLogIsStuck(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	b := newBox(t, plan(sh("yes 'a line of some length' | head -c 20000000; echo over >&2; exit 5")))
	b.log = w
	begin := time.Now()
	b.start()
	check(t, w.Close())
	if res := b.result(); res.Code != 5 {
		t.Errorf("%+v", res)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("took %s", took)
	}
}

// A log whose reader is gone, or whose disk is full, stops no process either.
func TestLogIsGone(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	check(t, err)
	check(t, r.Close())
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	for _, log := range []*os.File{w, full} {
		b := newBox(t, plan(sh("seq 100000; exit 5")))
		b.log = log
		b.start()
		check(t, log.Close())
		if res := b.result(); res.Code != 5 {
			t.Errorf("%+v", res)
		}
	}
}

// A record that was written in part does not spoil the next one.
func TestTornRecord(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	defer w.Close()
	out := newWriter(int(w.Fd()), time.Millisecond)
	big := strings.Repeat("x", 100_000) + "\n"
	out.write([]byte(big))
	if !out.stuck || !out.torn {
		t.Fatalf("after more than fits: %+v", out)
	}
	out.write([]byte("dropped\n"))
	buf := make([]byte, 1<<20)
	n, err := r.Read(buf)
	check(t, err)
	out.write([]byte("whole\n"))
	if out.stuck || out.torn {
		t.Errorf("after it was read: %+v", out)
	}
	m, err := r.Read(buf[n:])
	check(t, err)
	if got, want := string(buf[:n+m]), big[:n]+"\nwhole\n"; got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func BenchmarkFlood(b *testing.B) {
	for _, c := range []struct {
		name         string
		bytes, lines int64
	}{{"all passes", -1, 0}, {"limited", 1 << 20, 10_000}, {"nothing passes", 0, 0}} {
		b.Run(c.name, func(b *testing.B) {
			null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
			check(b, err)
			defer null.Close()
			j := &journal{out: newWriter(int(null.Fd()), logPatience), limit: newLimiter(c.bytes, c.lines)}
			s := j.stream("APP/PROC/WEB", step.Stdout)
			var text []byte
			for n := 0; len(text) < pumpBytes-100; n++ {
				text = fmt.Appendf(text, "line %08d of a flood, as long as many lines of a log are\n", n)
			}
			lines := strings.Count(string(text), "\n")
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Write(text)
			}
			b.ReportMetric(float64(lines*b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
