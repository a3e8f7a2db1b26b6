package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster/cells/engine"
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
	}
}

// at is a line of the cell.
func at(when time.Time, format string, args ...any) engine.Line {
	return engine.Line{At: when, Stream: step.Stdout, Text: fmt.Appendf(nil, format, args...)}
}

// note writes lines of the cell into the log of the container. That they cannot be written is no reason to
// do anything else.
func (i *instance) note(source string, lines ...engine.Line) {
	if source == "" {
		source = step.DefaultSource
	}
	for n := range lines {
		lines[n].Source = source
	}
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
