package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"muster/bbs/lrp"
)

// killWait is how long the end of a killed process may take to be seen.
const killWait = time.Second

// failure is how an action fails. A text that is not for people is only for the log of the cell.
type failure struct {
	text   string
	hidden bool // left out where texts are joined
	exit   Exit // of the process, if one was the cause
}

func (f *failure) Error() string { return f.text }

// How an interrupted action ends.
var (
	errCancelled = &failure{text: "cancelled", hidden: true}
	errExceeded  = &failure{text: "exceeded graceful shutdown interval", hidden: true}
)

// runner runs the actions of one program.
type runner struct {
	host    Host
	program Program
	numbers map[*lrp.Action]int // of downloads and uploads
	// capture, when set, takes all output instead of the log, and exit lines are left out.
	capture Output
}

// do runs an action; source is that of its log lines unless it names its own, ready is called once it is
// ready, if it becomes so. The end of ctx interrupts it.
func (r *runner) do(ctx context.Context, a *lrp.Action, source string, ready func()) error {
	switch {
	case a == nil:
		return &failure{text: "action is empty"}
	case a.Run != nil:
		return r.run(ctx, a.Run, source, ready)
	case a.Download != nil:
		ready()
		return r.download(ctx, a, source)
	case a.Upload != nil:
		ready()
		return r.upload(ctx, a, source)
	case a.Timeout != nil:
		return r.timeout(ctx, a.Timeout, source, ready)
	case a.EmitProgress != nil:
		return r.emit(ctx, a.EmitProgress, source, ready)
	case a.Try != nil:
		_ = r.do(ctx, a.Try.Action, first(a.Try.LogSource, source), ready) // a try never fails
		return nil
	case a.Parallel != nil:
		return r.group(ctx, members(a.Parallel.Actions, first(a.Parallel.LogSource, source), r), ready, always)
	case a.Serial != nil:
		return r.serial(ctx, a.Serial.Actions, source, ready)
	case a.Codependent != nil:
		return r.codependent(ctx, a.Codependent, source, ready)
	}
	return &failure{text: "action has no member"}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// serial runs actions one after another. Its own log source counts for nothing, as upstream.
func (r *runner) serial(ctx context.Context, actions []*lrp.Action, source string, ready func()) error {
	for n, a := range actions {
		if ctx.Err() != nil {
			return errCancelled
		}
		report := func() {}
		if n == len(actions)-1 {
			report = ready
		}
		if err := r.do(ctx, a, source, report); err != nil {
			return err
		}
	}
	if len(actions) == 0 {
		ready()
	}
	return nil
}

// member is something that runs beside others.
type member func(ctx context.Context, ready func()) error

func members(actions []*lrp.Action, source string, r *runner) []member {
	var all []member
	for _, a := range actions {
		all = append(all, func(ctx context.Context, ready func()) error { return r.do(ctx, a, source, ready) })
	}
	return all
}

// goesOn tells whether the others of a group go on after one has ended with err.
type goesOn func(err error) bool

func always(error) bool         { return true }
func never(error) bool          { return false }
func unlessFailed(e error) bool { return e == nil }

// group runs members at once, until all have ended; one after which the others do not go on interrupts
// them. It is ready when all are. Its error joins the texts of those that failed.
func (r *runner) group(ctx context.Context, all []member, ready func(), on goesOn) error {
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	type outcome struct {
		n   int
		err error
	}
	outcomes, readies := make(chan outcome, len(all)), make(chan struct{}, len(all))
	for n, m := range all {
		go func() {
			outcomes <- outcome{n, m(ctx, func() { readies <- struct{}{} })}
		}()
	}
	waiting, left := len(all), len(all)
	if waiting == 0 {
		ready()
	}
	errs := make([]error, len(all))
	for left > 0 {
		select {
		case <-readies:
			if waiting--; waiting == 0 {
				ready()
			}
		case o := <-outcomes:
			left--
			errs[o.n] = o.err
			if !on(o.err) {
				interrupt()
			}
		}
	}
	return join(errs)
}

// codependent runs actions at once; the first end, whichever it is, is the end of all and an error.
func (r *runner) codependent(ctx context.Context, a *lrp.CodependentAction, source string, ready func()) error {
	err := r.group(ctx, members(a.Actions, first(a.LogSource, source), r), ready, never)
	if f := new(failure); ctx.Err() == nil && (!errors.As(err, &f) || f.hidden) {
		return &failure{text: "Codependent step exited"}
	}
	return err
}

// join returns one error for many: the texts that people may see, in the order of the members.
func join(errs []error) error {
	var texts []string
	joined := &failure{hidden: true}
	for _, err := range errs {
		var f *failure
		if !errors.As(err, &f) {
			continue
		}
		switch {
		case !f.hidden:
			texts = append(texts, f.text)
			if joined.hidden {
				joined.hidden, joined.exit = false, f.exit
			}
		case joined.text == "":
			joined.text = f.text
		}
	}
	if joined.hidden && joined.text == "" {
		return nil
	}
	if !joined.hidden {
		joined.text = strings.Join(texts, "; ")
	}
	return joined
}

// timeout bounds the time of an action.
func (r *runner) timeout(ctx context.Context, a *lrp.TimeoutAction, source string, ready func()) error {
	limit := time.Duration(a.TimeoutMS) * time.Millisecond
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := r.do(within, a.Action, first(a.LogSource, source), ready)
	if within.Err() == nil || ctx.Err() != nil {
		return err
	}
	over := &failure{text: fmt.Sprintf("exceeded %s timeout", limit)}
	var f *failure
	if errors.As(err, &f) && !f.hidden {
		over.text += "; " + f.text
		over.exit = f.exit
	}
	return over
}

// emit tells the user before and after an action.
func (r *runner) emit(ctx context.Context, a *lrp.EmitProgressAction, source string, ready func()) error {
	source = first(a.LogSource, source)
	r.log(source, Stdout, a.StartMessage)
	err := r.do(ctx, a.Action, source, ready)
	if err == nil {
		r.log(source, Stdout, a.SuccessMessage)
		return nil
	}
	if a.FailureMessagePrefix != "" {
		text := a.FailureMessagePrefix
		if f := new(failure); errors.As(err, &f) && !f.hidden {
			text += ": " + f.text
		}
		r.log(source, Stderr, text)
	}
	return err
}

// log writes a line; an empty one is none.
func (r *runner) log(source string, stream Stream, line string) {
	switch {
	case line == "":
	case r.capture != nil:
		_, _ = r.capture.Write([]byte(line + "\n")) // a buffer
	default:
		r.host.Log(source, stream, line)
	}
}

// run runs a process.
func (r *runner) run(ctx context.Context, a *lrp.RunAction, source string, ready func()) error {
	if ctx.Err() != nil {
		return errCancelled
	}
	source = first(a.LogSource, source)
	p := Process{
		Path: a.Path, Args: a.Args, Env: r.environment(a), Dir: a.Dir, User: first(a.User, r.program.User), Source: source,
		Output: r.capture, Files: a.VolumeMountedFiles,
	}
	if a.Nofile != nil {
		p.Nofile = *a.Nofile
	}
	if a.SuppressLogOutput && r.capture == nil {
		p.Output = io.Discard
	}
	process, err := r.host.Start(p)
	if err != nil {
		if r.capture == nil {
			r.host.Log(source, Stdout, fmt.Sprintf("failed-creating-process: %v", err))
			return &failure{text: err.Error()}
		}
		return &failure{text: fmt.Sprintf("Failed to invoke process: %v", err)}
	}
	ready()
	interrupted, killed := r.await(ctx, process)
	if killed == stillThere {
		return &failure{text: "process did not exit"}
	}
	exit := process.Exit()
	if p.Output == nil {
		r.host.Log(source, Stdout, r.exitLine(exit, killed == asked))
	}
	switch {
	case interrupted && killed == asked:
		return errExceeded
	case interrupted:
		return errCancelled
	case exit.Code != 0:
		return &failure{text: Exited(source, exit), exit: exit}
	}
	return nil
}

// How far a process had to be killed.
const (
	notKilled = iota
	asked     // SIGKILL was sent
	stillThere
)

// await waits for the end of a process, and ends it when ctx ends.
func (r *runner) await(ctx context.Context, p Running) (interrupted bool, killed int) {
	select {
	case <-p.Ended():
		return false, notKilled
	case <-ctx.Done():
	}
	p.Signal(syscall.SIGTERM)
	if ended(p, r.program.Graceful) {
		return true, notKilled
	}
	p.Signal(syscall.SIGKILL)
	if ended(p, killWait) {
		return true, asked
	}
	return true, stillThere
}

// ended tells whether a process ends within some time.
func ended(p Running, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.Ended():
		return true
	case <-timer.C:
		return false
	}
}

func (r *runner) exitLine(e Exit, killed bool) string {
	line := fmt.Sprintf("Exit status %d", e.Code)
	if killed {
		line += fmt.Sprintf(" (exceeded %s graceful shutdown interval)", r.program.Graceful)
	}
	if e.OutOfMemory {
		line += outOfMemory
	}
	return line
}

const outOfMemory = " (out of memory)"

// Exited is the text for a process that ended by itself with a status other than 0.
func Exited(source string, e Exit) string {
	text := fmt.Sprintf("%s: Exited with status %d", first(source, DefaultSource), e.Code)
	if e.OutOfMemory {
		text += outOfMemory
	}
	return text
}

func (r *runner) environment(a *lrp.RunAction) []string {
	env := append([]string(nil), r.program.Env...)
	for _, v := range a.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	return append(env, r.program.LastEnv...)
}
