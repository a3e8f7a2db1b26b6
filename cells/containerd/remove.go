package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
)

const (
	// destroyAtOnce bounds how many containers RemoveAll destroys at the same time.
	destroyAtOnce = 8
	// emptyWithin is how long containerd's garbage collection may take until a namespace without
	// images, containers and leases is empty.
	emptyWithin = 30 * time.Second
)

// RemoveAll removes the cell from the machine: its containers, images, namespace, bridge, rules,
// cgroups and state directory. It may be repeated.
func (e *Engine) RemoveAll(ctx context.Context) error {
	if err := e.destroyAll(ctx); err != nil {
		return err
	}
	if err := e.removeNamespace(e.scope(ctx)); err != nil {
		return fmt.Errorf("containerd namespace %s: %w", e.cfg.Namespace, err)
	}
	if err := e.network.remove(ctx); err != nil {
		return fmt.Errorf("network of %s: %w", e.cfg.Namespace, err)
	}
	if err := e.guard.removeAll(); err != nil {
		return err
	}
	if err := removeCgroups(e.cfg.CgroupParent); err != nil {
		return err
	}
	for above := path.Dir(e.cfg.CgroupParent); above != "/"; above = path.Dir(above) {
		if removeCgroupIfEmpty(above) != nil {
			break // another cell's
		}
	}
	_ = os.Remove(filepath.Join(runcState, e.cfg.Namespace)) // empty by now, or of no importance
	return os.RemoveAll(e.cfg.StateDir)
}

// destroyAll destroys what can be: one container that cannot keeps none of the others.
func (e *Engine) destroyAll(ctx context.Context) error {
	all, err := e.List(ctx)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(destroyAtOnce)
	errs := make([]error, len(all))
	for i, c := range all {
		group.Go(func() error {
			errs[i] = e.Destroy(ctx, c.ID)
			return nil
		})
	}
	_ = group.Wait() // it only waits
	return errors.Join(errs...)
}

// removeNamespace removes images and leases, has containerd collect what they held, and removes the
// namespace.
func (e *Engine) removeNamespace(ctx context.Context) error {
	e.forget()
	all, err := e.client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	for _, image := range all {
		if err := e.client.ImageService().Delete(ctx, image.Name); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := e.dropLeases(ctx); err != nil {
		return err
	}
	return e.deleteNamespace(ctx)
}

// deleteNamespace deletes the namespace as soon as the collection has emptied it.
func (e *Engine) deleteNamespace(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptyWithin)
	defer cancel()
	for {
		if err := e.collect(ctx); err != nil {
			return err
		}
		err := e.client.NamespaceService().Delete(ctx, e.cfg.Namespace)
		if err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if !errdefs.IsFailedPrecondition(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(waitAgain):
		}
	}
}

// collect has containerd collect garbage: that is what it does when a lease is deleted synchronously.
func (e *Engine) collect(ctx context.Context) error {
	lease, err := e.client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(emptyWithin))
	if err != nil {
		return err
	}
	return e.client.LeasesService().Delete(ctx, lease, leases.SynchronousDelete)
}
