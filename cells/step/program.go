package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"muster/bbs/lrp"
)

// Run runs a program to its end, which it also tells as an event. The end of ctx interrupts it.
func Run(ctx context.Context, p Program, host Host) Result {
	r := &runner{host: host, program: p, numbers: map[*lrp.Action]int{}}
	for n, a := range p.Transfers() {
		r.numbers[a] = n
	}
	result := r.result(r.whole(ctx))
	host.Tell(Event{At: time.Now(), Name: Ended, Result: result})
	return result
}

// whole runs setup and then all that stays.
func (r *runner) whole(ctx context.Context) error {
	source := first(r.program.Source, DefaultSource)
	if r.program.Setup != nil {
		if err := r.setup(ctx, source); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return errCancelled
	}
	r.host.Tell(Event{At: time.Now(), Name: Begun})
	var once sync.Once
	ready := func() {
		once.Do(func() { r.host.Tell(Event{At: time.Now(), Name: Ready}) })
	}
	all, on := r.longLived(source)
	if len(all) == 1 {
		return all[0](ctx, ready)
	}
	return r.group(ctx, all, ready, on)
}

// setup runs the setup action. An interrupt is passed on and not waited for: nothing that it does is of
// use any more, and the end of the container ends it.
func (r *runner) setup(ctx context.Context, source string) error {
	done := make(chan error, 1)
	go func() { done <- r.do(ctx, r.program.Setup, source, func() {}) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errCancelled
	}
}

// longLived returns what runs after setup, and when the rest goes on without one of them: when nothing
// but a status of 0 was its end, and no sidecar is part of it.
func (r *runner) longLived(source string) ([]member, goesOn) {
	all := members(append([]*lrp.Action{r.program.Action}, r.program.Sidecars...), source, r)
	switch {
	case r.program.Monitor != nil:
		all = append(all, func(ctx context.Context, ready func()) error { return r.monitor(ctx, source, ready) })
	case r.program.Checked:
		all = append(all, stay)
	}
	if len(r.program.Sidecars) > 0 {
		return all, never
	}
	return all, unlessFailed
}

// stay is the member of a program whose health others look after: it is there until it is interrupted.
func stay(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

// result says how the program ended.
func (r *runner) result(err error) Result {
	var f *failure
	if !errors.As(err, &f) {
		return r.succeeded()
	}
	res := Result{Failed: true, Reason: f.text, Code: f.exit.Code, OutOfMemory: f.exit.OutOfMemory}
	if res.Code == 0 {
		res.Code = 1
	}
	return res
}

// succeeded reads the result file, if there is to be one.
func (r *runner) succeeded() Result {
	if r.program.ResultFile == "" {
		return Result{}
	}
	content, err := r.host.ReadFile(r.program.ResultFile, MaxResult)
	switch {
	case err != nil:
		return Result{Failed: true, Reason: "failed to fetch result", Code: 1}
	case len(content) > MaxResult:
		return Result{Failed: true, Reason: fmt.Sprintf("result file is too large (over %d bytes)", MaxResult), Code: 1}
	}
	return Result{Output: string(content)}
}

// firstPause is the pause before the first attempt of a monitor; each is half as long again as the last.
const firstPause = 50 * time.Millisecond

// monitor makes the health check of a program that is an action: until it passes, and then for good.
func (r *runner) monitor(ctx context.Context, source string, ready func()) error {
	m := r.program.Monitor
	r.host.Log(source, Stdout, "Starting health monitoring of container")
	begin := time.Now()
	for wait := min(firstPause, m.StartEvery); ; wait = min(wait*3/2, m.StartEvery) {
		if !pause(ctx, wait) {
			return nil
		}
		message, passed := r.attempt(ctx, source)
		elapsed := time.Since(begin)
		switch {
		case ctx.Err() != nil:
			return nil
		case passed:
			r.host.Log(source, Stdout, "Container became healthy")
			ready()
			return r.stayHealthy(ctx, source)
		case m.StartTimeout > 0 && elapsed >= m.StartTimeout:
			r.host.Log(source, Stderr, message)
			r.host.Log(source, Stderr, StartupFailed(elapsed))
			return &failure{text: NeverHealthy(elapsed, message)}
		}
	}
}

// stayHealthy returns when an attempt does not pass.
func (r *runner) stayHealthy(ctx context.Context, source string) error {
	for pause(ctx, r.program.Monitor.Every) {
		message, passed := r.attempt(ctx, source)
		if ctx.Err() == nil && !passed {
			r.host.Log(source, Stderr, message)
			r.host.Log(source, Stderr, LivenessFailed)
			return &failure{text: Unhealthy(message)}
		}
	}
	return nil
}

// attempt makes the check once; message is what it wrote, or else why it failed.
func (r *runner) attempt(ctx context.Context, source string) (message string, passed bool) {
	capture := &buffer{}
	checker := *r
	checker.capture = capture
	err := checker.do(ctx, r.program.Monitor.Action, source, func() {})
	if message = strings.TrimSpace(capture.text()); message == "" && err != nil {
		message = err.Error()
	}
	return message, err == nil
}

// maxMessage bounds what is kept of the output of a check, in bytes.
const maxMessage = 4096

// buffer keeps the beginning of what is written to it.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:min(len(p), maxMessage-b.buf.Len())])
	return len(p), nil
}

func (b *buffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// pause waits; it tells whether ctx lived that long.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Texts that users see, whoever makes the check.
const LivenessFailed = "Container became unhealthy"

// StartupFailed is the line for checks that did not pass in time.
func StartupFailed(elapsed time.Duration) string {
	return fmt.Sprintf("Failed after %s: startup health check never passed.", elapsed.Round(time.Millisecond))
}

// NeverHealthy is the reason of a container whose startup checks did not pass in time.
func NeverHealthy(elapsed time.Duration, message string) string {
	return fmt.Sprintf("Instance never healthy after %s: %s", elapsed.Round(time.Millisecond), message)
}

// Unhealthy is the reason of a container whose liveness check failed.
func Unhealthy(message string) string { return "Instance became unhealthy: " + message }
