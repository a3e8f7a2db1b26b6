package belongings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/fetch"
	"muster/cells/fetch/archive"
	"muster/cells/step"
)

// labelDependency, with a number behind it, is a label of a container with the key of a directory that it uses.
const labelDependency = "muster.dependency."

// Dependencies are directories that are downloaded once for all containers of a cell. They belong to root.
type Dependencies struct{ Fetcher *fetch.Fetcher }

// Prepare downloads the dependencies of a container at once.
func (d Dependencies) Prepare(ctx context.Context, c Container) (Grant, error) {
	got := make([]fetch.Directory, len(c.Needs.Dependencies))
	group, ctx := errgroup.WithContext(ctx)
	for i, dep := range c.Needs.Dependencies {
		group.Go(func() (err error) {
			got[i], err = d.download(ctx, c, dep)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Grant{}, &Error{Reason: fetch.DependenciesFailed, Err: err}
	}
	g := Grant{Labels: map[string]string{}}
	for i, dep := range c.Needs.Dependencies {
		g.Mounts = append(g.Mounts, engine.Mount{Source: got[i].Path, Target: dep.To})
		g.Labels[labelDependency+strconv.Itoa(i)] = got[i].Key
	}
	return g, nil
}

// download downloads one dependency and says so in the log of the container, if the dependency has a name.
func (d Dependencies) download(ctx context.Context, c Container, dep lrp.CachedDependency) (fetch.Directory, error) {
	say := func(stream step.Stream, format string, args ...any) {
		if dep.Name != "" {
			c.Note(engine.Line{
				At: time.Now(), Source: cmp.Or(dep.LogSource, c.Plan.LogSource), Stream: stream, Text: fmt.Appendf(nil, format, args...),
			})
		}
	}
	say(step.Stdout, "Downloading %s...", dep.Name)
	dir, err := d.Fetcher.Directory(ctx, fetch.Request{
		Name: dep.Name, URL: dep.From, CacheKey: dep.CacheKey, ChecksumAlgorithm: dep.ChecksumAlgorithm, ChecksumValue: dep.ChecksumValue,
	}, archive.Owner{}, string(c.ID))
	switch {
	case err != nil && ctx.Err() != nil: // another one failed, or nobody wants the container any more
		return dir, err
	case err != nil:
		say(step.Stderr, "%v", err)
		return dir, fmt.Errorf("%w: %w", err, errors.Unwrap(err))
	case dir.Cached:
		say(step.Stdout, "Downloaded %s", dep.Name)
	default:
		say(step.Stdout, "Downloaded %s (%s)", dep.Name, step.Size(dir.Downloaded))
	}
	return dir, nil
}

// Keep says that a container uses what its labels say.
func (d Dependencies) Keep(_ context.Context, c engine.Container) error {
	var keys []string
	for name, key := range c.Labels {
		if strings.HasPrefix(name, labelDependency) {
			keys = append(keys, key)
		}
	}
	return d.Fetcher.Keep(string(c.ID), keys...)
}

// Release ends the use of all dependencies of a container.
func (d Dependencies) Release(_ context.Context, id engine.ID) error {
	d.Fetcher.Release(string(id))
	return nil
}

// Holders returns nothing: who uses what is not kept but on the containers themselves.
func (d Dependencies) Holders(context.Context) ([]engine.ID, error) { return nil, nil }
