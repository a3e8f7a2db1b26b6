package callback

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"muster/bbs/internal/store"
	"muster/bbs/task"
	"muster/internal/wait"
)

// Limits and times of deliveries.
const (
	// DefaultWorkers is how many deliveries run at a time if Options says nothing; as in Diego.
	DefaultWorkers = 1000
	// DefaultTimeout bounds one request if Options says nothing; as in Diego.
	DefaultTimeout = 10 * time.Second
	// QueueLimit is how many deliveries may wait for a worker. What does not fit is submitted again by
	// convergence.
	QueueLimit = 10_000
	// Tries is how often a delivery posts at most, redirects not counted.
	Tries = 3
	// MaxRedirects is how many redirects one try follows.
	MaxRedirects = 3
	// firstPause is the mean wait after the first try; it grows fourfold with each.
	firstPause = 500 * time.Millisecond
	// maxAnswerBytes is how much of an answer is read, so that its connection can be used again. What it
	// says does not count.
	maxAnswerBytes = 64 << 10
	// idlePerHost is how many connections to one receiver are kept.
	idlePerHost = 64
)

// TellingTime is how long all tries of a delivery together take at most, when a task counts as stuck after kick:
// what is left is for the database.
func TellingTime(kick time.Duration) time.Duration { return kick * 5 / 6 }

// Store is what deliveries do to tasks; *store.Store does it.
type Store interface {
	// ApplyTask runs the rules for one event.
	ApplyTask(ctx context.Context, ev task.Event, c store.Call) (shouldStart bool, err error)
	// Task returns a task with its definition; nil if there is none.
	Task(ctx context.Context, guid task.GUID) (*task.Task, error)
}

// Outcome says how a delivery ended, as a metric label.
type Outcome string

// The outcomes.
const (
	Told      Outcome = "told"       // the receiver knows, and the task is gone
	Refused   Outcome = "refused"    // the receiver will not know, and the task is gone
	Later     Outcome = "later"      // convergence will submit it again
	NotNeeded Outcome = "not needed" // somebody else is telling, or the task is gone
)

// Options says for whom and how a Pool works. Store and Log are required.
type Options struct {
	Store Store
	Log   *slog.Logger
	// Fence is the lease of this term; it goes with every call to the store.
	Fence store.Fence
	// TLS is our identity, and whom we trust: identity.Files.ClientByName. Nil: the system's.
	TLS *tls.Config
	// Kick is after how long convergence takes a RESOLVING task for stuck; see TellingTime. 0: that of task.DefaultPolicy.
	Kick time.Duration
	// Timeout bounds one request, answer included; 0: DefaultTimeout.
	Timeout time.Duration
	// Workers is how many deliveries run at a time: up, one dead receiver delays others less; down, less
	// memory and fewer connections. 0: DefaultWorkers.
	Workers int
	// Dropped is told of every delivery for which there was no room; may be nil. Calls may overlap.
	Dropped func()
	// Done is told of every delivery that was begun; may be nil. Calls may overlap.
	Done func(o Outcome, took time.Duration)
}

// Pool delivers completions for one term of the lease. It is safe for concurrent use.
type Pool struct {
	Options
	client *http.Client
	queue  chan delivery
	pause  func(ctx context.Context, d time.Duration) bool // returns early with ctx

	mu     sync.Mutex
	active map[task.GUID]bool // waiting or being delivered
	full   bool               // there was no room for the last one
}

// delivery is a task to tell of. What is told is read when its turn comes, so that it cannot be that
// of an older task with the same GUID.
type delivery struct {
	guid  task.GUID
	trace string
}

// New returns a pool. Run makes it work.
func New(o Options) *Pool {
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Kick <= 0 {
		o.Kick = task.DefaultPolicy().Kick
	}
	if o.Dropped == nil {
		o.Dropped = func() {}
	}
	if o.Done == nil {
		o.Done = func(Outcome, time.Duration) {}
	}
	return &Pool{
		Options: o, queue: make(chan delivery, QueueLimit), pause: wait.For, active: map[task.GUID]bool{},
		client: &http.Client{
			Transport: &http.Transport{
				TLSClientConfig: o.TLS, ForceAttemptHTTP2: true, DisableCompression: true,
				MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: o.Kick, MaxResponseHeaderBytes: maxAnswerBytes,
			},
			// Followed by post, which keeps the method and the body.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Submit asks for the delivery of a task, of which a summary will do; trace is the id of the call that
// completed it. It never waits. It returns false if there is nothing to do: the task is not COMPLETED,
// nobody wants to be told or can be, it is on its way already, or too many are: then convergence submits
// it again.
func (p *Pool) Submit(t task.Task, trace string) bool {
	text := t.Definition.CompletionCallbackURL
	if t.State != task.Completed || text == "" {
		return false
	}
	if _, err := receiver(text); err != nil {
		// It stays COMPLETED, to be read, until it is forgotten.
		p.Log.Warn("task callback has no usable URL", "task_guid", t.GUID, "error", err)
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active[t.GUID] {
		return false
	}
	select {
	case p.queue <- delivery{t.GUID, trace}:
		p.active[t.GUID], p.full = true, false
		return true
	default:
	}
	if !p.full { // one line for all that find no room
		p.full = true
		p.Log.Warn("task callbacks put off: too many are waiting", "task_guid", t.GUID, "waiting", len(p.queue))
	}
	p.Dropped()
	return false
}

// Waiting returns how many deliveries wait for a worker.
func (p *Pool) Waiting() int { return len(p.queue) }

// Active returns how many deliveries are under way.
func (p *Pool) Active() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, len(p.active)-len(p.queue))
}

// Run delivers what is submitted until ctx ends, which is to be no later than the lease. It returns
// when no delivery is running any more. It may be called once.
func (p *Pool) Run(ctx context.Context) error {
	defer p.client.CloseIdleConnections()
	var running sync.WaitGroup
	defer running.Wait()
	free := make(chan struct{}, p.Workers)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case free <- struct{}{}:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d := <-p.queue:
			running.Go(func() {
				defer func() { <-free }()
				p.work(ctx, d)
			})
		}
	}
}

// work makes one delivery.
func (p *Pool) work(ctx context.Context, d delivery) {
	start := time.Now()
	outcome := p.deliver(ctx, d)
	p.mu.Lock()
	delete(p.active, d.guid)
	p.mu.Unlock()
	p.Done(outcome, time.Since(start))
}

// deliver marks the task, tells of it, and deletes it.
func (p *Pool) deliver(ctx context.Context, d delivery) Outcome {
	// From here to the kick, the task is ours.
	telling, cancel := context.WithTimeout(ctx, TellingTime(p.Kick))
	defer cancel()
	log, call := p.Log.With("task_guid", d.guid, "trace_id", d.trace), store.Call{TraceID: d.trace, Fence: p.Fence}
	if _, err := p.Store.ApplyTask(ctx, task.Event{Name: task.Resolve, GUID: d.guid}, call); err != nil {
		return notApplied(ctx, log, err)
	}
	t, err := p.Store.Task(ctx, d.guid)
	if err != nil || t == nil {
		log.Warn("task callback put off: the task cannot be read", "error", err)
		return Later
	}
	outcome, err := p.tell(telling, *t, d.trace)
	switch {
	case ctx.Err() != nil:
		log.Info("task callback given up: the lease ends")
		return Later
	case outcome == Later:
		log.Warn("task callback put off", "error", err)
		return Later
	case outcome == Refused:
		log.Warn("task callback refused", "error", err)
	}
	if _, err := p.Store.ApplyTask(ctx, task.Event{Name: task.Delete, GUID: d.guid}, call); err != nil {
		return notApplied(ctx, log, err)
	}
	return outcome
}

// notApplied says what follows from an event that was not accepted.
func notApplied(ctx context.Context, log *slog.Logger, err error) Outcome {
	var moved *task.Refusal
	switch {
	case errors.As(err, &moved):
		log.Debug("task callback left alone: the task has moved on", "error", err)
		return NotNeeded
	case errors.Is(err, store.ErrFenced), ctx.Err() != nil:
		log.Info("task callback given up: the lease ends", "error", err)
	default:
		log.Warn("task callback put off: the task cannot be changed", "error", err)
	}
	return Later
}

// tell posts until the receiver has answered for good.
func (p *Pool) tell(ctx context.Context, t task.Task, trace string) (Outcome, error) {
	to, err := receiver(t.Definition.CompletionCallbackURL)
	if err != nil {
		return Later, err
	}
	wait := firstPause
	for try := 1; ; try++ {
		verdict, err := p.post(ctx, to, body(t), trace)
		switch {
		case verdict == done:
			return Told, nil
		case verdict == refused:
			return Refused, err
		case verdict == later || try == Tries || ctx.Err() != nil:
			return Later, err
		}
		// Spread, so that completions that failed together do not come back together.
		p.pause(ctx, wait/2+rand.N(wait))
		wait *= 4
	}
}

// receiver reads a callback URL.
func receiver(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		// The error repeats the URL, which may hold a password.
		return nil, errors.New("completion_callback_url: not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, errors.New("completion_callback_url: want http://HOST or https://HOST, got " + u.Redacted())
	}
	return u, nil
}
