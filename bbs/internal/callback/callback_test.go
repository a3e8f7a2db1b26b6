package callback

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/internal/store"
	"muster/bbs/task"
	"muster/internal/identity"
	"muster/internal/wait"
)

// records keeps tasks in memory, by the rules of bbs/task.
type records struct {
	mu    sync.Mutex
	tasks map[task.GUID]*task.Task
	calls []store.Call
	fail  map[task.EventName]error // what happens instead
}

func (r *records) ApplyTask(ctx context.Context, ev task.Event, c store.Call) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	if err := errors.Join(r.fail[ev.Name], ctx.Err()); err != nil {
		return false, err
	}
	out, err := task.Apply(r.tasks[ev.GUID], ev, task.DefaultPolicy(), time.Now())
	if err == nil {
		r.tasks[ev.GUID] = out.Task
	}
	return out.ShouldStart, err
}

func (r *records) Task(ctx context.Context, guid task.GUID) (*task.Task, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tasks[guid], errors.Join(r.fail["read"], ctx.Err())
}

// state returns the state of a task.
func (r *records) state(guid task.GUID) task.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tasks[guid]; t != nil {
		return t.State
	}
	return task.NoTask
}

// created is when all tasks of these tests were.
var created = time.Unix(1_700_000_000, 123)

// completed puts a COMPLETED task into the records.
func (r *records) completed(guid task.GUID, url string) task.Task {
	t := task.Task{
		GUID: guid, Domain: "d", State: task.Completed, CreatedAt: created, UpdatedAt: created, FirstCompletedAt: created, Result: "42",
		Definition: task.Definition{CompletionCallbackURL: url, Annotation: "mine"},
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks[guid] = &t
	return t
}

// world is a pool at work.
type world struct {
	*Pool
	records *records
	ended   chan Outcome
	pauses  []time.Duration // of deliveries one at a time
	stop    context.CancelCauseFunc
	stopped chan error
}

// start runs a pool that does not really pause between tries.
func start(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{records: &records{tasks: map[task.GUID]*task.Task{}, fail: map[task.EventName]error{}}}
	w.ended, w.stopped = make(chan Outcome, QueueLimit), make(chan error, 1)
	o.Store, o.Log, o.Fence = w.records, slog.New(slog.DiscardHandler), store.Fence{Lease: "bbs", Token: 7}
	o.Done = func(o Outcome, _ time.Duration) { w.ended <- o }
	w.Pool = New(o)
	w.pause = func(_ context.Context, d time.Duration) bool { w.pauses = append(w.pauses, d); return true }
	ctx, cancel := context.WithCancelCause(context.Background())
	w.stop = cancel
	go func() { w.stopped <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(nil); w.client.CloseIdleConnections() })
	return w
}

// deliver submits a completed task and waits until its delivery has ended.
func (w *world) deliver(t *testing.T, url string) Outcome {
	t.Helper()
	if !w.Submit(w.records.completed("t", url).Summary(), "trace") {
		t.Fatal("not taken")
	}
	return <-w.ended
}

// receiverOf answers with one status after another, the last one again and again.
func receiverOf(t *testing.T, statuses ...int) (url string, posts *atomic.Int32) {
	t.Helper()
	posts = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := int(posts.Add(1))
		w.WriteHeader(statuses[min(n, len(statuses))-1])
	}))
	t.Cleanup(s.Close)
	return s.URL, posts
}

// TestStatuses covers the statuses of bbs reference §8.4, "task is gone after a 2xx and after a 4xx
// answer; repeated 503 is retried" (§19), and "any 4xx/500 counts as delivered" (§20.2).
func TestStatuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		statuses []int
		outcome  Outcome
		posts    int32
	}{
		{[]int{200}, Told, 1},
		{[]int{202}, Told, 1},
		{[]int{204}, Told, 1},
		{[]int{303}, Told, 1},
		{[]int{304}, Refused, 1},
		{[]int{302}, Refused, 1}, // to nowhere
		{[]int{400}, Refused, 1},
		{[]int{401}, Refused, 1},
		{[]int{404}, Refused, 1},
		{[]int{408}, Later, 3},
		{[]int{410}, Refused, 1},
		{[]int{422}, Refused, 1},
		{[]int{429}, Later, 3},
		{[]int{500}, Later, 3},
		{[]int{502}, Later, 3},
		{[]int{503}, Later, 3},
		{[]int{504}, Later, 3},
		{[]int{599}, Later, 3},
		{[]int{503, 200}, Told, 2},
		{[]int{504, 500, 200}, Told, 3},
		{[]int{503, 404}, Refused, 2},
	} {
		t.Run(fmt.Sprint(c.statuses), func(t *testing.T) {
			t.Parallel()
			url, posts := receiverOf(t, c.statuses...)
			w := start(t, Options{})
			if got := w.deliver(t, url); got != c.outcome || posts.Load() != c.posts {
				t.Errorf("%s after %d posts, want %s after %d", got, posts.Load(), c.outcome, c.posts)
			}
			want := task.NoTask
			if c.outcome == Later {
				want = task.Resolving // until convergence kicks it
			}
			if got := w.records.state("t"); got != want {
				t.Errorf("the task is %v, want %v", got, want)
			}
		})
	}
}

// TestPausesGrow: Diego does not pause at all (bbs reference §20.2, "callback: no back-off").
func TestPausesGrow(t *testing.T) {
	t.Parallel()
	url, _ := receiverOf(t, 503)
	w := start(t, Options{})
	w.deliver(t, url)
	if len(w.pauses) != 2 || w.pauses[0] < firstPause/2 || w.pauses[0] >= firstPause*3/2 || w.pauses[1] < firstPause*2 || w.pauses[1] >= firstPause*6 {
		t.Errorf("paused %v", w.pauses)
	}
}

// TestWhatIsSent checks the message against the wire reference (§4.5, §7), the headers, the calls to the
// records, and that we show the identity of the BBS and believe the CA.
func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	ca, err := identity.OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.Issue(identity.ID{Role: identity.BBS})
	if err != nil {
		t.Fatal(err)
	}
	type sent struct{ Method, Path, User, Type, Trace, Body, Peer string }
	got := make(chan sent, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		user, _, _ := r.BasicAuth()
		peer, _ := identity.Of(r.TLS.PeerCertificates[0])
		got <- sent{r.Method, r.URL.Path, user, r.Header.Get("Content-Type"), r.Header.Get("X-Vcap-Request-Id"), string(text), string(peer.Role)}
	}))
	if s.TLS, err = files.Server(identity.BBS); err != nil {
		t.Fatal(err)
	}
	s.StartTLS()
	defer s.Close()
	tls, err := files.ClientByName()
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, Options{TLS: tls})
	if outcome := w.deliver(t, fmt.Sprintf("https://me:secret@localhost:%d/done/t", s.Listener.Addr().(*net.TCPAddr).Port)); outcome != Told {
		t.Fatal(outcome)
	}
	want := sent{
		"POST", "/done/t", "me", "application/json", "trace",
		`{"task_guid":"t","failed":false,"failure_reason":"","result":"42","annotation":"mine","created_at":1700000000000000123}`, string(identity.BBS),
	}
	if diff := cmp.Diff(want, <-got); diff != "" {
		t.Error(diff)
	}
	call := store.Call{TraceID: "trace", Fence: store.Fence{Lease: "bbs", Token: 7}}
	if diff := cmp.Diff([]store.Call{call, call}, w.records.calls); diff != "" {
		t.Error(diff)
	}
	if got := string(body(task.Task{GUID: "t", Failed: true, FailureReason: "why", CreatedAt: created})); got !=
		`{"task_guid":"t","failed":true,"failure_reason":"why","result":"","created_at":1700000000000000123}` {
		t.Error(got)
	}
}

// TestRedirects keeps method and body, and ends. Diego's client turns a 302 into a GET, whose answer it
// takes for the receiver's.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var bodies []string
			mux := http.NewServeMux()
			s := httptest.NewServer(mux)
			defer s.Close()
			mux.Handle("/from", http.RedirectHandler("/to", status))
			mux.HandleFunc("POST /to", func(_ http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				bodies = append(bodies, string(text))
			})
			w := start(t, Options{})
			if got := w.deliver(t, s.URL+"/from"); got != Told || len(bodies) != 1 || len(bodies[0]) < 50 {
				t.Errorf("%s: %q", got, bodies)
			}
		})
	}
	t.Run("round and round", func(t *testing.T) {
		t.Parallel()
		var posts atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			posts.Add(1)
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
		}))
		defer s.Close()
		w := start(t, Options{})
		if got := w.deliver(t, s.URL); got != Refused || posts.Load() != MaxRedirects+1 {
			t.Errorf("%s after %d posts", got, posts.Load())
		}
	})
	t.Run("out of the protection", func(t *testing.T) {
		t.Parallel()
		url, posts := receiverOf(t, 200)
		s := httptest.NewTLSServer(http.RedirectHandler(url, http.StatusTemporaryRedirect))
		defer s.Close()
		w := start(t, Options{TLS: s.Client().Transport.(*http.Transport).TLSClientConfig})
		if got := w.deliver(t, s.URL); got != Refused || posts.Load() != 0 {
			t.Errorf("%s after %d posts", got, posts.Load())
		}
	})
}

// TestNoAnswer covers "client timeout / closed connection" and "other transport error" of bbs reference
// §8.4: what Diego leaves at once is tried again, too.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		receiver func(http.ResponseWriter, *http.Request) // nil: nobody listens
		tls      bool
		timeout  time.Duration // as long as it takes; 0: longer than that
		pauses   int
	}{
		"silent": {receiver: func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not see the client go
			<-r.Context().Done()
		}, timeout: 100 * time.Millisecond, pauses: Tries - 1},
		"closed":    {receiver: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, pauses: Tries - 1},
		"refused":   {pauses: Tries - 1},
		"untrusted": {receiver: func(http.ResponseWriter, *http.Request) {}, tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(c.receiver))
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			if c.tls {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			if c.receiver == nil {
				s.Close()
			}
			w := start(t, Options{Kick: 2 * time.Hour, Timeout: stdcmp.Or(c.timeout, time.Hour)})
			if got := w.deliver(t, s.URL); got != Later || len(w.pauses) != c.pauses {
				t.Errorf("%s after %d pauses", got, len(w.pauses))
			}
			if got := w.records.state("t"); got != task.Resolving {
				t.Errorf("the task is %v", got)
			}
		})
	}
}

// TestHugeAnswer is done when it knows the status, and does not read on for ever.
func TestHugeAnswer(t *testing.T) {
	t.Parallel()
	written := make(chan int, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := 0
		for chunk := make([]byte, 64<<10); ; {
			m, err := w.Write(chunk)
			if n += m; err != nil {
				written <- n
				return
			}
		}
	}))
	defer s.Close()
	w := start(t, Options{Timeout: time.Hour})
	if got := w.deliver(t, s.URL); got != Told {
		t.Error(got)
	}
	<-written // it was hung up on
}

// TestNothingToDo refuses what cannot be delivered without touching the records.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	w := start(t, Options{})
	for _, url := range []string{"", "::", "ftp://host/", "host/path", "http://", "https://:443/", "http://a b/"} {
		if w.Submit(w.records.completed("t", url), "") {
			t.Errorf("took %q", url)
		}
	}
	running := w.records.completed("t", "http://host/")
	running.State = task.Running
	if w.Submit(running, "") || len(w.records.calls) != 0 {
		t.Error("took a task that runs")
	}
}

// TestLostLease ends a delivery in the middle: the request is given up and the task left to the next
// holder of the lease.
func TestLostLease(t *testing.T) {
	t.Parallel()
	begun, hungUp := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(begun)
		<-r.Context().Done()
		close(hungUp)
	}))
	defer s.Close()
	w := start(t, Options{Timeout: time.Hour})
	w.Submit(w.records.completed("t", s.URL), "")
	<-begun
	w.stop(errors.New("the lease is lost"))
	<-hungUp
	if err := <-w.stopped; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := <-w.ended; got != Later || w.records.state("t") != task.Resolving || len(w.records.calls) != 1 {
		t.Errorf("%s, the task is %v after %d calls", got, w.records.state("t"), len(w.records.calls))
	}
}

// TestOnceAtATime takes a task again only when its delivery has ended, and tells nobody twice.
func TestOnceAtATime(t *testing.T) {
	t.Parallel()
	begun, answer := make(chan struct{}), make(chan struct{})
	var posts atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		posts.Add(1)
		close(begun)
		<-answer
	}))
	defer s.Close()
	w := start(t, Options{})
	done := w.records.completed("t", s.URL)
	taken := w.Submit(done, "")
	<-begun
	if !taken || w.Submit(done, "") {
		t.Error("taken twice")
	}
	close(answer)
	if got := <-w.ended; got != Told {
		t.Error(got)
	}
	// A late watcher submits what is long gone, and nobody hears of it.
	if !w.Submit(done, "") {
		t.Error("not taken again")
	}
	if got := <-w.ended; got != NotNeeded || posts.Load() != 1 {
		t.Errorf("%s after %d posts", got, posts.Load())
	}
}

// TestWorkersAreBounded lets no more deliveries run than there are workers, and all of them in the end.
func TestWorkersAreBounded(t *testing.T) {
	t.Parallel()
	const workers, tasks = 3, 20
	var now, most atomic.Int32
	full := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == workers {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		<-full // nobody is done before all workers are at it
	}))
	defer s.Close()
	w := start(t, Options{Workers: workers})
	for i := range tasks {
		w.Submit(w.records.completed(task.GUID(fmt.Sprint(i)), s.URL), "")
	}
	for range tasks {
		if got := <-w.ended; got != Told {
			t.Error(got)
		}
	}
	if most.Load() != workers {
		t.Errorf("%d at a time", most.Load())
	}
}

// TestQueueIsBounded takes no more than fits, and what it did not take another time.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	dropped := 0
	p := New(Options{Log: slog.New(slog.NewTextHandler(&lines, nil)), Dropped: func() { dropped++ }}) // which does not run
	r := &records{tasks: map[task.GUID]*task.Task{}}
	for i := range QueueLimit {
		if !p.Submit(r.completed(task.GUID(fmt.Sprint(i)), "http://host/"), "") {
			t.Fatalf("number %d not taken", i)
		}
	}
	late := r.completed("late", "http://host/")
	for range 2 {
		if p.Submit(late, "") {
			t.Error("more was taken than fits")
		}
	}
	if n := strings.Count(lines.String(), "level=WARN"); dropped != 2 || n != 1 || p.Waiting() != QueueLimit || p.Active() != 0 {
		t.Errorf("%d are dropped, %d lines say so, %d wait and %d are under way", dropped, n, p.Waiting(), p.Active())
	}
	<-p.queue
	if !p.Submit(late, "") {
		t.Error("what did not fit is not taken later")
	}
}

// TestRecordsFail leaves everything to convergence when the records cannot be changed or read.
func TestRecordsFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at      task.EventName
		err     error
		outcome Outcome
		posts   int32
		state   task.State
	}{
		"database away":          {task.Resolve, store.ErrUnavailable, Later, 0, task.Completed},
		"lease lost":             {task.Resolve, store.ErrFenced, Later, 0, task.Completed},
		"read fails":             {"read", store.ErrUnavailable, Later, 0, task.Resolving},
		"database away at last":  {task.Delete, store.ErrUnavailable, Later, 1, task.Resolving},
		"lease lost at last":     {task.Delete, store.ErrFenced, Later, 1, task.Resolving},
		"somebody else is at it": {task.Resolve, &task.Refusal{Why: task.InvalidStateTransition}, NotNeeded, 0, task.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, posts := receiverOf(t, 200)
			w := start(t, Options{})
			w.records.fail[c.at] = c.err
			if got := w.deliver(t, url); got != c.outcome || posts.Load() != c.posts || w.records.state("t") != c.state {
				t.Errorf("%s after %d posts, the task is %v", got, posts.Load(), w.records.state("t"))
			}
		})
	}
}

// silent is a receiver that never answers, for virtual time.
type silent struct{ posts atomic.Int32 }

func (s *silent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.posts.Add(1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestEndsBeforeTheKick: the tries of a silent receiver end before convergence takes the task for stuck,
// so that the next delivery cannot overlap with this one, wherever it runs.
func TestEndsBeforeTheKick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, Options{})
		receiver := &silent{}
		w.pause, w.client.Transport = wait.For, receiver
		begun := time.Now()
		if got := w.deliver(t, "http://host/"); got != Later {
			t.Error(got)
		}
		if took := time.Since(begun); took != 25*time.Second || receiver.posts.Load() != Tries {
			t.Errorf("%d posts took %v", receiver.posts.Load(), took)
		}
		w.stop(nil)
		<-w.stopped
	})
}

// TestRunWaits for deliveries to end: whoever holds the lease next must not meet ours at work.
func TestRunWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, Options{})
		ending := make(chan struct{})
		w.Done = func(Outcome, time.Duration) { <-ending }
		w.client.Transport = &silent{}
		w.Submit(w.records.completed("t", "http://host/"), "")
		synctest.Wait()
		w.stop(nil)
		synctest.Wait()
		select {
		case <-w.stopped:
			t.Error("Run returned, and a delivery is still running")
		default:
		}
		close(ending)
		<-w.stopped
	})
}

// TestNewTaskWithAnOldName tells what became of the task that is there, not of the one that was when the
// delivery was asked for.
func TestNewTaskWithAnOldName(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		bodies <- string(text)
	}))
	defer s.Close()
	w := start(t, Options{})
	old := w.records.completed("t", s.URL)
	old.Result = "old"
	w.Submit(old, "")
	<-w.ended
	if got, want := <-bodies, string(body(w.records.completed("t", s.URL))); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}
