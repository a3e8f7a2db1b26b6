package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells/engine"
	"muster/cells/fetch"
	"muster/cells/step"
	"muster/rep/recipe"
)

// What the log of an instance says about its readiness, in Diego's words.
const (
	isReady  = "Container passed the readiness health check. Container marked ready and added to route pool."
	notReady = "Container failed the readiness health check. Container marked not ready and removed from route pool."
)

// noteTimeout bounds the writing of lines of the cell into a log.
const noteTimeout = 5 * time.Second

// watchProgram posts what the program tells. After an adoption it is told again from the beginning.
func (i *instance) watchProgram() {
	i.beside(func() {
		n := 0
		persist(i.process, i.log, "events of the program not read", func() error {
			for {
				told, err := i.cell.engine.Events(i.process, i.id(), n)
				if errors.Is(err, engine.ErrNotFound) {
					return nil
				}
				if err != nil {
					return err
				}
				n += len(told)
				for _, ev := range told {
					if ev.Name == step.Ended {
						return nil
					}
					i.post(func() { i.told(ev) })
				}
			}
		})
	})
}

// told takes what the program tells.
func (i *instance) told(ev step.Event) {
	i.log.Info("told by the program", "event", ev.Name, "at", ev.At)
	switch ev.Name {
	case step.Begun:
		i.programmed = true
	case step.Ready:
		i.ready = true
	case step.Wants:
		i.transfer(ev)
	}
}

// notMoved is what the owner is told about a file that the cell could not look for.
const notMoved = "the cell cannot move this file"

// transfer moves a file that the program wants. What an earlier rep has moved is told again after an
// adoption, and is not moved again.
func (i *instance) transfer(ev step.Event) {
	known, again := i.transfers, ev.At.Before(i.accepted)
	i.beside(func() {
		if again {
			if done, err := i.cell.engine.Answered(i.process, i.id(), ev.N); err != nil || done {
				return
			}
		}
		if known == nil {
			var err error
			if known, err = i.readTransfers(); err != nil {
				i.log.Warn("transfers of the program not read", "error", err)
			}
		}
		answer, done := engine.Delivery{Error: notMoved}, func() {}
		if ev.N < len(known) {
			answer, done = i.move(ev, known[ev.N])
		}
		defer done()
		if i.process.Err() != nil {
			return // given up: the next rep moves it
		}
		persist(i.process, i.log, "transfer not answered", func() error {
			err := i.cell.engine.Deliver(i.process, i.id(), ev.N, answer)
			if errors.Is(err, engine.ErrNotFound) {
				return nil
			}
			return err
		})
	})
}

// readTransfers returns the transfers of an adopted program; what runs in a container never changes.
func (i *instance) readTransfers() ([]*lrp.Action, error) {
	if i.isTask {
		t, err := read(i, func(ctx context.Context) (task.Task, error) { return i.cell.bbs.Task(ctx, i.task()) })
		return recipe.TaskTransfers(t.Definition), err
	}
	process := i.slot.Process
	d, err := read(i, func(ctx context.Context) (lrp.Desired, error) { return i.cell.bbs.Desired(ctx, process) })
	return recipe.Transfers(d), err
}

// move moves a file; done is called when the answer was taken.
func (i *instance) move(ev step.Event, a *lrp.Action) (answer engine.Delivery, done func()) {
	var err error
	done = func() {}
	switch {
	case a.Download != nil:
		var got *fetch.Archive
		d := a.Download
		got, err = i.cell.Files.Archive(i.process, fetch.Request{
			Name: d.Artifact, URL: d.From, CacheKey: d.CacheKey, ChecksumAlgorithm: d.ChecksumAlgorithm, ChecksumValue: d.ChecksumValue,
		})
		if err == nil {
			answer, done = engine.Delivery{Archive: got.Path, Size: got.Downloaded, Cached: got.Cached}, got.Close
		}
	default:
		answer.Size, err = i.upload(ev, a.Upload)
	}
	if err == nil {
		return answer, done
	}
	i.log.Warn("file not moved", "transfer", ev.N, "error", err, "cause", errors.Unwrap(err))
	var known *fetch.Error
	if !errors.As(err, &known) {
		return engine.Delivery{Error: notMoved}, done
	}
	return engine.Delivery{Error: known.Text}, done
}

func (i *instance) upload(ev step.Event, a *lrp.UploadAction) (int64, error) {
	file, err := i.cell.engine.Open(i.process, i.id(), ev.Path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return i.cell.Files.Upload(i.process, fetch.Request{Name: a.Artifact, URL: a.To}, file, ev.Bytes)
}

// at is a line of the cell.
func at(when time.Time, format string, args ...any) engine.Line {
	return engine.Line{At: when, Stream: step.Stdout, Text: fmt.Appendf(nil, format, args...)}
}

// note writes lines of the cell into the log of the container.
func (i *instance) note(source string, lines ...engine.Line) {
	var d draft
	d.note(source, lines...)
	i.write(d.lines)
}

// write writes lines that have a source. That they cannot be written is no reason to do anything else.
func (i *instance) write(lines []engine.Line) {
	ctx, cancel := context.WithTimeout(i.ctx, noteTimeout)
	defer cancel()
	if err := i.cell.engine.Note(ctx, i.id(), lines...); err != nil && ctx.Err() == nil {
		i.log.Debug("log of the container not written", "error", err)
	}
}

// complain writes why a health check ends the instance.
func (i *instance) complain(plan recipe.Plan, why error, what string) {
	for _, l := range []struct{ source, text string }{{plan.CheckSource, why.Error()}, {plan.LogSource, what}} {
		line := at(time.Now(), "%s", l.text)
		line.Stream = step.Stderr
		i.note(l.source, line)
	}
}
