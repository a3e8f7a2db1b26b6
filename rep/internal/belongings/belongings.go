// Package belongings owns what a container needs on the cell besides what the engine makes: volumes, cached
// dependencies, files, certificates. Each kind is a Belonging; a Set is all of them, and is what the runner knows.
//
// A container is given its belongings before the engine makes it, and they are taken back when the engine has
// destroyed it. Both may be cut short at any moment by the end of the rep: then whatever is left names the container
// that it is of, and is taken back by the next rep as soon as that sees that the container is gone.
package belongings

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"muster/cells/engine"
	"muster/rep/recipe"
)

// Belonging is one kind of what containers need. Its methods may be called concurrently, but not at the same time
// for one container.
type Belonging interface {
	// Prepare makes ready what a container needs, before the engine makes it, and returns what the container gets
	// by that. What an error leaves half made is taken back by Release. An error whose text the owner of the
	// container is to read as it is, is an *Error.
	Prepare(ctx context.Context, c Container) (Grant, error)
	// Keep takes over what an earlier rep has prepared for a container that the engine still has. It is called before
	// any Prepare.
	Keep(ctx context.Context, c engine.Container) error
	// Release takes back what a container has, once the engine has destroyed it. A container that has nothing is
	// no error. On an error it can be called again.
	Release(ctx context.Context, id engine.ID) error
	// Holders returns the containers that something was prepared for which outlives the rep.
	Holders(ctx context.Context) ([]engine.ID, error)
}

// Container is a container that is about to be made.
type Container struct {
	ID    engine.ID
	Plan  recipe.Plan
	Needs recipe.Needs
	// Note adds a line to the log that the container will have. It may be called concurrently.
	Note func(engine.Line)
}

// Grant is what a container gets. The zero value is nothing.
type Grant struct {
	Mounts []engine.Mount
	Env    []string          // NAME=value, before the variables of single actions
	Labels map[string]string // are found again on the container by Keep
}

// Error is why a container cannot be made, in words that its owner knows.
type Error struct {
	Reason string
	Err    error // for the log of the cell
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Set is all kinds of belongings of a cell, in the order in which they are prepared.
type Set []Belonging

// Prepare prepares everything. Mounts come in an order in which none hides another.
func (s Set) Prepare(ctx context.Context, c Container) (Grant, error) {
	all := Grant{Labels: map[string]string{}}
	for _, b := range s {
		g, err := b.Prepare(ctx, c)
		if err != nil {
			return Grant{}, err
		}
		all.Mounts, all.Env = append(all.Mounts, g.Mounts...), append(all.Env, g.Env...)
		maps.Copy(all.Labels, g.Labels)
	}
	slices.SortStableFunc(all.Mounts, func(a, b engine.Mount) int { return strings.Compare(a.Target, b.Target) })
	return all, nil
}

// Keep keeps everything that can be kept.
func (s Set) Keep(ctx context.Context, c engine.Container) error {
	var errs []error
	for _, b := range s {
		errs = append(errs, b.Keep(ctx, c))
	}
	return errors.Join(errs...)
}

// Release takes back everything, last things first.
func (s Set) Release(ctx context.Context, id engine.ID) error {
	var errs []error
	for _, b := range slices.Backward(s) {
		errs = append(errs, b.Release(ctx, id))
	}
	return errors.Join(errs...)
}

// Sweep takes back what containers have that are gone, and returns these. known is asked about a container after it
// was found to have something; so one that is being made must be known before anything is prepared for it.
func (s Set) Sweep(ctx context.Context, known func(engine.ID) bool) (gone []engine.ID, err error) {
	var errs []error
	for _, b := range slices.Backward(s) {
		holders, err := b.Holders(ctx)
		errs = append(errs, err)
		for _, id := range holders {
			if known(id) {
				continue
			}
			if err := b.Release(ctx, id); err != nil {
				errs = append(errs, fmt.Errorf("container %s is gone: %w", id, err))
			}
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	return slices.Compact(gone), errors.Join(errs...)
}
