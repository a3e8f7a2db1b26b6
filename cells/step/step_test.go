package step_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/inmem"
	"muster/cells/step"
)

// A program runs for a while, says what it was told to say, and ends: its path is how, its arguments for how long
// and with which status.
var programs = map[string]inmem.Program{
	"/for":      func(p inmem.Proc) int { return inmem.After(duration(p.Args[0]), status(p.Args[1]))(p) }, // ends at once on SIGTERM
	"/stubborn": func(p inmem.Proc) int { <-p.Killed; return 0 },
	"/polite": func(p inmem.Proc) int { // needs so long after SIGTERM
		<-p.Signals
		return inmem.After(duration(p.Args[0]), status(p.Args[1]))(p)
	},
	"/say": func(p inmem.Proc) int {
		fmt.Fprintln(p.Stdout, p.Args[0])
		return status(p.Args[1])
	},
	"/env": func(p inmem.Proc) int {
		fmt.Fprintln(p.Stdout, strings.Join(p.Env, " "))
		return 0
	},
	"/write": func(p inmem.Proc) int {
		if err := p.WriteFile(p.Args[0], []byte(p.Args[1])); err != nil {
			return 1
		}
		return 0
	},
	// ends with the nth status at its nth run, the last one for good
	"/nth": func(p inmem.Proc) int {
		text, err := p.ReadFile("/runs")
		n := len(text)
		if err == nil || n == 0 {
			_ = p.WriteFile("/runs", append(slices.Clone(text), '.'))
		}
		fmt.Fprintf(p.Stderr, "run %d", n+1)
		return status(p.Args[min(n, len(p.Args)-1)])
	},
}

func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

func status(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// run is a run action: "/for 3s 1".
func run(line string) *lrp.Action {
	fields := strings.Fields(line)
	return &lrp.Action{Run: &lrp.RunAction{Path: fields[0], Args: fields[1:]}}
}

func serial(all ...*lrp.Action) *lrp.Action {
	return &lrp.Action{Serial: &lrp.SerialAction{Actions: all, LogSource: "IGNORED"}}
}

func parallel(all ...*lrp.Action) *lrp.Action {
	return &lrp.Action{Parallel: &lrp.ParallelAction{Actions: all}}
}

func codependent(all ...*lrp.Action) *lrp.Action {
	return &lrp.Action{Codependent: &lrp.CodependentAction{Actions: all}}
}

func try(a *lrp.Action) *lrp.Action { return &lrp.Action{Try: &lrp.TryAction{Action: a}} }

func timeout(limit time.Duration, a *lrp.Action) *lrp.Action {
	return &lrp.Action{Timeout: &lrp.TimeoutAction{Action: a, TimeoutMS: limit.Milliseconds()}}
}

func emit(a *lrp.Action) *lrp.Action {
	return &lrp.Action{EmitProgress: &lrp.EmitProgressAction{Action: a, StartMessage: "begin", SuccessMessage: "good", FailureMessagePrefix: "bad"}}
}

// outcome is what became of a program.
type outcome struct {
	Result step.Result
	Took   time.Duration
	Ready  time.Duration // after the start; 0: at once, or never: see Events
	Events string        // the first letter of each
	Log    []string      // SOURCE 1 text
}

// play runs a program under virtual time; interrupt, if not 0, is when it is asked to stop. answer answers its
// transfers.
func play(t *testing.T, p step.Program, interrupt time.Duration, answer func(step.Event) *engine.Delivery) outcome {
	t.Helper()
	e := inmem.NewHost(map[string]inmem.Image{"*": {Programs: programs}}).Engine()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.Create(t.Context(), engine.Spec{ID: "c", Program: p})
	must(err)
	begin := time.Now()
	must(e.Start(t.Context(), "c"))
	if interrupt > 0 {
		time.AfterFunc(interrupt, func() { _ = e.Kill(context.Background(), "c", syscall.SIGTERM) })
	}
	var out outcome
	for n := 0; !strings.HasSuffix(out.Events, "e"); n++ {
		all, err := e.Events(t.Context(), "c", n)
		must(err)
		ev := all[0]
		out.Events += string(ev.Name[0])
		switch ev.Name {
		case step.Ready:
			out.Ready = ev.At.Sub(begin)
		case step.Wants:
			if d := answer(ev); d != nil {
				must(e.Deliver(t.Context(), "c", ev.N, *d))
			}
		}
	}
	exit, err := e.Wait(t.Context(), "c")
	must(err)
	out.Result, out.Took = *exit.Result, exit.At.Sub(begin)
	out.Log = lines(t, e)
	must(e.Destroy(t.Context(), "c"))
	return out
}

// lines returns the log.
func lines(t *testing.T, e engine.Engine) (all []string) {
	t.Helper()
	r, err := e.Logs(t.Context(), "c", false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %d %s", l.Source, l.Stream, l.Text))
	}
}

func failed(reason string, code int) step.Result {
	return step.Result{Failed: true, Reason: reason, Code: code}
}

// TestActions plays one action each as the whole program, with the rules of cell reference §9 and §11.
// §24 "Codependent action": the end of one member is that of all; of a parallel action it is not.
func TestActions(t *testing.T) {
	t.Parallel()
	const graceful = 10 * time.Second
	for _, test := range []struct {
		name      string
		action    *lrp.Action
		interrupt time.Duration
		want      step.Result
		took      time.Duration
		events    string
	}{
		{"a run that ends well", run("/for 3s 0"), 0, step.Result{}, 3 * time.Second, "bre"},
		{"a run that fails", run("/for 3s 4"), 0, failed("APP: Exited with status 4", 4), 3 * time.Second, "bre"},
		{"a run that cannot be started", &lrp.Action{Run: &lrp.RunAction{Path: "/missing"}}, 0, failed(`program "/missing" is not in the image`, 1), 0, "be"},
		{"a run that is interrupted", run("/for 1h 0"), time.Minute, failed("cancelled", 1), time.Minute, "bre"},
		{"a run that ends on its own terms", run("/polite 9s 0"), time.Minute, failed("cancelled", 1), time.Minute + 9*time.Second, "bre"},
		{"a run that has to be killed", run("/stubborn"), time.Minute, failed("exceeded graceful shutdown interval", 1), time.Minute + graceful, "bre"},

		{"a serial", serial(run("/for 1s 0"), run("/for 2s 0")), 0, step.Result{}, 3 * time.Second, "bre"},
		{"a serial that fails", serial(run("/for 1s 7"), run("/for 2s 0")), 0, failed("APP: Exited with status 7", 7), time.Second, "be"},
		{"a serial that is interrupted", serial(run("/for 1s 0"), run("/for 1h 0"), run("/for 1h 0")), 2 * time.Second, failed("cancelled", 1), 2 * time.Second, "be"},

		{"a parallel waits for all", parallel(run("/for 1s 2"), run("/for 5s 3"), run("/for 2s 0")), 0,
			failed("APP: Exited with status 2; APP: Exited with status 3", 2), 5 * time.Second, "bre"},
		{"a parallel is interrupted", parallel(run("/stubborn"), run("/polite 1s 3")), time.Second,
			failed("exceeded graceful shutdown interval", 1), time.Second + graceful, "bre"},

		{"codependents end with the first", codependent(run("/for 1s 0"), run("/polite 2s 0")), 0, failed("Codependent step exited", 1), 3 * time.Second, "bre"},
		{"codependents and a failure", codependent(run("/for 1s 9"), run("/for 1h 0")), 0, failed("APP: Exited with status 9", 9), time.Second, "bre"},
		{"codependents are interrupted", codependent(run("/for 1h 0"), run("/for 1h 0")), time.Second, failed("cancelled", 1), time.Second, "bre"},

		{"in time", timeout(2*time.Second, run("/for 1s 5")), 0, failed("APP: Exited with status 5", 5), time.Second, "bre"},
		{"too late", timeout(500*time.Millisecond, run("/for 1h 0")), 0, failed("exceeded 500ms timeout", 1), 500 * time.Millisecond, "bre"},
		{"too late and stubborn", timeout(time.Second, parallel(run("/stubborn"), run("/for 0s 3"))), 0,
			failed("exceeded 1s timeout; APP: Exited with status 3", 3), time.Second + graceful, "bre"},
		{"interrupted before it is late", timeout(time.Minute, run("/for 1h 0")), time.Second, failed("cancelled", 1), time.Second, "bre"},

		{"a try never fails", try(run("/for 1s 5")), 0, step.Result{}, time.Second, "bre"},
		{"a try that is interrupted", serial(try(run("/for 1h 5")), run("/for 1h 0")), time.Second, failed("cancelled", 1), time.Second, "be"},
		{"a try of nothing", try(&lrp.Action{Run: &lrp.RunAction{Path: "/missing"}}), 0, step.Result{}, 0, "be"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got := play(t, step.Program{Action: test.action, Source: "APP", Graceful: graceful, LogBytes: -1}, test.interrupt, nil)
				if got.Result != test.want || got.Took != test.took || got.Events != test.events {
					t.Errorf("got %+v after %v, events %q; want %+v after %v, events %q",
						got.Result, got.Took, got.Events, test.want, test.took, test.events)
				}
			})
		})
	}
}

// TestAssembly plays whole programs: cell reference §9.5.
// §24 "No monitor", "With monitor", "Sidecar".
func TestAssembly(t *testing.T) {
	t.Parallel()
	monitor := func(line string, timeout time.Duration) *step.Monitor {
		return &step.Monitor{Action: run(line), StartTimeout: timeout, StartEvery: 2 * time.Second, Every: 30 * time.Second}
	}
	for _, test := range []struct {
		name      string
		program   step.Program
		interrupt time.Duration
		want      step.Result
		took      time.Duration
		ready     time.Duration
		events    string
	}{
		{"nothing but an app that ends", step.Program{Action: run("/for 1s 0")}, 0, step.Result{}, time.Second, 0, "bre"},
		{"setup comes first", step.Program{Setup: run("/for 5s 0"), Action: run("/for 1s 0")}, 0, step.Result{}, 6 * time.Second, 5 * time.Second, "bre"},
		{"setup fails", step.Program{Setup: run("/for 5s 3"), Action: run("/for 1s 0")}, 0, failed("APP: Exited with status 3", 3), 5 * time.Second, 0, "e"},
		{"setup is not waited for", step.Program{Setup: run("/stubborn"), Action: run("/for 1s 0")}, time.Second, failed("cancelled", 1), time.Second, 0, "e"},

		{"a sidecar ends", step.Program{Action: run("/polite 1s 0"), Sidecars: []*lrp.Action{run("/for 3s 0")}}, 0, failed("cancelled", 1), 4 * time.Second, 0, "bre"},
		{"a sidecar fails", step.Program{Action: run("/for 1h 0"), Sidecars: []*lrp.Action{run("/for 3s 2")}}, 0, failed("APP: Exited with status 2", 2), 3 * time.Second, 0, "bre"},
		{"the app beside a sidecar ends", step.Program{Action: run("/for 1s 0"), Sidecars: []*lrp.Action{run("/for 1h 0")}}, 0, failed("cancelled", 1), time.Second, 0, "bre"},

		{"a daemon with a monitor stays", step.Program{Action: run("/for 1s 0"), Monitor: monitor("/for 0s 0", 0)}, time.Hour,
			step.Result{}, time.Hour, 50 * time.Millisecond, "bre"},
		{"an app fails beside its monitor", step.Program{Action: run("/for 9s 1"), Monitor: monitor("/for 0s 0", 0)}, 0,
			failed("APP: Exited with status 1", 1), 9 * time.Second, 50 * time.Millisecond, "bre"},
		{"healthy at the third attempt", step.Program{Action: run("/for 1h 0"), Monitor: monitor("/nth 1 1 0", 0)}, time.Minute,
			failed("cancelled", 1), time.Minute, 50*time.Millisecond + 75*time.Millisecond + 112500*time.Microsecond, "bre"},
		{"never healthy in time", step.Program{Action: run("/for 1h 0"), Monitor: monitor("/nth 1", 200*time.Millisecond)}, 0,
			failed("Instance never healthy after 238ms: run 3", 1), 237500 * time.Microsecond, 0, "be"},
		{"never healthy without a bound", step.Program{Action: run("/for 1h 0"), Monitor: monitor("/nth 1", 0)}, 0, step.Result{}, 0, 0, ""},
		{"unhealthy later", step.Program{Action: run("/for 1h 0"), Monitor: monitor("/nth 0 0 5", 0)}, 0,
			failed("Instance became unhealthy: run 3", 1), time.Minute + 50*time.Millisecond, 50 * time.Millisecond, "bre"},
		{"a monitor that cannot be started", step.Program{Action: run("/for 1h 0"), Monitor: monitor("/missing", time.Millisecond)}, 0,
			failed(`Instance never healthy after 50ms: Failed to invoke process: program "/missing" is not in the image`, 1), 50 * time.Millisecond, 0, "be"},

		{"a daemon that the cell checks", step.Program{Action: run("/for 1s 0"), Checked: true}, time.Hour, step.Result{}, time.Hour, 0, "bre"},
		{"an app that the cell checks fails", step.Program{Action: run("/for 1s 6"), Checked: true}, 0, failed("APP: Exited with status 6", 6), time.Second, 0, "bre"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := test.program
				p.Source, p.Graceful, p.LogBytes = "APP", 10*time.Second, -1
				if test.events == "" { // it goes on for ever: until it is interrupted
					test.interrupt, test.want, test.took, test.events = time.Hour, failed("cancelled", 1), time.Hour, "be"
					p.Action = run("/for 100h 0")
				}
				got := play(t, p, test.interrupt, nil)
				if got.Result != test.want || got.Took != test.took || got.Ready != test.ready || got.Events != test.events {
					t.Errorf("got %+v after %v, ready after %v, events %q; want %+v after %v, ready after %v, events %q\n%s",
						got.Result, got.Took, got.Ready, got.Events, test.want, test.took, test.ready, test.events, strings.Join(got.Log, "\n"))
				}
			})
		})
	}
}

// TestLog plays what users read: sources that are inherited, progress, exit lines, the texts of monitors.
func TestLog(t *testing.T) {
	t.Parallel()
	named := func(a *lrp.Action, source string) *lrp.Action {
		a.Run.LogSource = source
		return a
	}
	quiet := run("/say hidden 0")
	quiet.Run.SuppressLogOutput = true
	tried := try(run("/say b 3"))
	tried.Try.LogSource = "TRY"
	bad := emit(run("/say c 1"))
	bad.EmitProgress.LogSource = "EMIT"
	over := emit(timeout(time.Second, run("/stubborn")))
	for _, test := range []struct {
		name    string
		program step.Program
		want    []string
	}{
		{"sources", step.Program{Action: serial(run("/say a 0"), named(run("/say n 0"), "OWN"), tried, quiet, bad)}, []string{
			"APP 1 a", "APP 1 Exit status 0", "OWN 1 n", "OWN 1 Exit status 0", "TRY 1 b", "TRY 1 Exit status 3",
			"EMIT 1 begin", "EMIT 1 c", "EMIT 1 Exit status 1", "EMIT 2 bad: EMIT: Exited with status 1",
		}},
		{"progress", step.Program{Action: emit(run("/say a 0"))}, []string{"APP 1 begin", "APP 1 a", "APP 1 Exit status 0", "APP 1 good"}},
		{"killed", step.Program{Action: over}, []string{
			"APP 1 begin", "APP 1 Exit status 137 (exceeded 10s graceful shutdown interval)", "APP 2 bad: exceeded 1s timeout",
		}},
		{"not started", step.Program{Action: &lrp.Action{Run: &lrp.RunAction{Path: "/missing"}}}, []string{
			`APP 1 failed-creating-process: program "/missing" is not in the image`,
		}},
		{"monitor", step.Program{Action: run("/for 1h 0"), Monitor: &step.Monitor{Action: run("/nth 1 0 1"), StartEvery: time.Second, Every: time.Second}}, []string{
			"APP 1 Starting health monitoring of container", "APP 1 Container became healthy", "APP 2 run 3", "APP 2 Container became unhealthy",
			"APP 1 Exit status 143",
		}},
		{"never healthy", step.Program{Action: run("/for 1h 0"), Monitor: &step.Monitor{Action: run("/nth 1"), StartTimeout: time.Millisecond, StartEvery: time.Second}}, []string{
			"APP 1 Starting health monitoring of container", "APP 2 run 1", "APP 2 Failed after 50ms: startup health check never passed.",
			"APP 1 Exit status 143",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				test.program.Source, test.program.Graceful, test.program.LogBytes = "APP", 10*time.Second, -1
				if diff := cmp.Diff(test.want, play(t, test.program, 0, nil).Log); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestEnvironmentOrder: later values win, and those of the cell come last. §24 "Env".
func TestEnvironmentOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := run("/env")
		a.Run.Env = []lrp.EnvVar{{Name: "A", Value: "action"}, {Name: "C", Value: "action"}}
		got := play(t, step.Program{Action: a, Env: []string{"A=program"}, LastEnv: []string{"C=cell"}, LogBytes: -1}, 0, nil)
		if want := "LOG 1 A=program A=action C=action C=cell"; got.Log[0] != want {
			t.Errorf("log %q, want %q", got.Log, want)
		}
	})
}

// TestResultFile reads what a task leaves, up to the bound. §24 "Tasks": success with the content of the result file,
// a failed task has none.
func TestResultFile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size   int
		status string
		want   step.Result
	}{
		"at the bound":    {step.MaxResult, "0", step.Result{Output: strings.Repeat("x", step.MaxResult)}},
		"above the bound": {step.MaxResult + 1, "0", failed("result file is too large (over 51200 bytes)", 1)},
		"missing":         {-1, "0", failed("failed to fetch result", 1)},
		"failed":          {3, "2", failed("APP: Exited with status 2", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := run("/for 0s " + test.status)
				if test.size >= 0 {
					write := run("/write /result x")
					write.Run.Args[1] = strings.Repeat("x", test.size)
					a = serial(write, a)
				}
				got := play(t, step.Program{Action: a, ResultFile: "/result", Source: "APP", LogBytes: -1}, 0, nil)
				if got.Result != test.want {
					t.Errorf("got %+.100v", got.Result)
				}
			})
		})
	}
}

// TestTransfers plays downloads and uploads: numbers, progress, failures and interrupts.
func TestTransfers(t *testing.T) {
	t.Parallel()
	download := func(artifact string) *lrp.Action {
		return &lrp.Action{Download: &lrp.DownloadAction{Artifact: artifact, From: "http://secret/", To: "/to", LogSource: "DL"}}
	}
	upload := &lrp.Action{Upload: &lrp.UploadAction{Artifact: "out", From: "/out", To: "http://secret/"}}
	long := strings.Repeat("e", 2000)
	for _, test := range []struct {
		name      string
		action    *lrp.Action
		answer    *engine.Delivery // nil: none ever comes
		interrupt time.Duration
		want      step.Result
		log       []string
	}{
		{"a download", download("app"), &engine.Delivery{Size: 1536}, 0, step.Result{}, []string{"DL 1 Downloading app...", "DL 1 Downloaded app (1.5K)"}},
		{"a cached download", download("app"), &engine.Delivery{Size: 5, Cached: true}, 0, step.Result{}, []string{"DL 1 Downloading app...", "DL 1 Downloaded app"}},
		{"a download without a name", download(""), &engine.Delivery{}, 0, step.Result{}, nil},
		{"a download that fails", download("app"), &engine.Delivery{Error: "Downloading app failed"}, 0, failed("Downloading app failed", 1),
			[]string{"DL 1 Downloading app...", "DL 2 Downloading app failed"}},
		{"a failure at length", download(""), &engine.Delivery{Error: long}, 0, failed(long[:1006]+" (error truncated)", 1),
			[]string{"DL 2 " + long[:1006] + " (error truncated)"}},
		{"a download that is interrupted", download("app"), nil, time.Minute, failed("cancelled", 1), []string{"DL 1 Downloading app..."}},
		{"an upload", serial(run("/write /out abc"), upload), &engine.Delivery{Size: 3 << 20}, 0, step.Result{},
			[]string{"APP 1 Exit status 0", "APP 1 Uploading out...", "APP 1 Uploaded out (3M)"}},
		{"an upload of nothing", upload, nil, 0, failed("open /out of container c: file does not exist", 1),
			[]string{"APP 1 Uploading out...", "APP 2 open /out of container c: file does not exist"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			empty := emptyArchive(t)
			synctest.Test(t, func(t *testing.T) {
				got := play(t, step.Program{Action: test.action, Source: "APP", LogBytes: -1}, test.interrupt, func(step.Event) *engine.Delivery {
					if test.answer != nil && test.answer.Error == "" {
						test.answer.Archive = empty
					}
					return test.answer
				})
				if diff := cmp.Diff(test.want, got.Result); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(test.log, got.Log); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// emptyArchive returns the path of a tar file without members.
func emptyArchive(t *testing.T) string {
	path := t.TempDir() + "/empty.tar"
	if err := os.WriteFile(path, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
