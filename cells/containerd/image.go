package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/google/uuid"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"muster/cells/engine"
)

const (
	// fetchTimeout bounds a fetch, unpacking included.
	fetchTimeout = 15 * time.Minute
	// leaseTime is how long containerd keeps what a fetch got that never came to its end.
	leaseTime = time.Hour
	// maxCachedImages bounds what is remembered of images; all is forgotten when it is reached.
	maxCachedImages = 1000
	// maxDocumentBytes bounds image indexes, manifests and configurations.
	maxDocumentBytes = 4 << 20
)

// image is what starting a container needs to know of an unpacked image.
type image struct {
	name   string // of containerd's image record
	chain  string // of its last layer: the parent of the containers' snapshots
	config ocispec.ImageConfig
}

// source is where an image comes from.
type source struct {
	// key changes with the content; it is also the name of containerd's image record.
	key string
	// fetch makes the content complete; it may make the image record, too.
	fetch func(ctx context.Context, name string) (images.Image, error)
}

// image returns the image of a spec; it is fetched unless it is there.
func (e *Engine) image(ctx context.Context, spec engine.Spec) (*image, error) {
	src, err := e.source(ctx, spec)
	if err == nil {
		var img *image
		if img, err = e.fetchOnce(ctx, spec.RootFS, src); err == nil {
			return img, nil
		}
	}
	return nil, imageError(spec.RootFS, noSpace(err, e.cfg.StateDir))
}

// imageError says which image cannot be had; causes that are not the image's fault stay what they are.
func imageError(url string, err error) error {
	if errors.Is(err, engine.ErrNoSpace) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errdefs.IsUnavailable(err) {
		return fmt.Errorf("image %s: %w", url, err)
	}
	return fmt.Errorf("image %s: %w: %w", url, engine.ErrImage, err)
}

// source finds out where an image comes from and which version is wanted.
func (e *Engine) source(ctx context.Context, spec engine.Spec) (source, error) {
	if name, ok := strings.CutPrefix(spec.RootFS, preloadedScheme); ok {
		return e.preloadedSource(name)
	}
	scheme, rest, ok := strings.Cut(spec.RootFS, "://")
	if !ok {
		scheme = ""
	}
	switch scheme {
	case "docker":
		return e.registrySource(ctx, spec)
	case "oci-archive":
		return e.archiveSource(rest)
	case "oci-layout":
		return e.layoutSource(rest)
	}
	return source{}, errors.New("want a URL that begins with docker://, oci-archive://, oci-layout:// or preloaded:")
}

// fetchOnce fetches an image once for all that ask at the same time. Whoever gives up waiting does
// not take it from the others, so the fetch ends with the engine, not with one caller.
func (e *Engine) fetchOnce(ctx context.Context, url string, src source) (*image, error) {
	e.mu.Lock()
	img := e.images[src.key]
	e.mu.Unlock()
	if img != nil {
		return img, nil
	}
	result := e.fetches.DoChan(src.key, func() (any, error) {
		e.active.Add(1)
		defer e.active.Done()
		ctx, cancel := context.WithTimeout(e.life, fetchTimeout)
		defer cancel()
		return e.fetch(ctx, url, src)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*image), nil
	}
}

// fetch makes sure that an image is there, unpacked and known.
func (e *Engine) fetch(ctx context.Context, url string, src source) (*image, error) {
	manager := e.client.LeasesService()
	if err := e.dropOldLeases(ctx); err != nil {
		return nil, err
	}
	lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, err
	}
	img, err := e.fetchLeased(leases.WithLease(ctx, lease.ID), url, src)
	var how []leases.DeleteOpt
	if err != nil { // so that what was fetched in vain is gone when the caller hears of it
		how = append(how, leases.SynchronousDelete)
	}
	if left := manager.Delete(context.WithoutCancel(ctx), lease, how...); left != nil && err != nil {
		err = fmt.Errorf("%w; and what was fetched is kept for %v: %w", err, leaseTime, left)
	}
	if err != nil && errors.Is(noSpace(err, e.cfg.StateDir), engine.ErrNoSpace) {
		if left := e.reclaim(context.WithoutCancel(ctx)); left != nil {
			err = fmt.Errorf("%w; and what was unpacked is not removed yet: %w", err, left)
		}
	}
	return img, err
}

// reclaim has containerd remove what it could not remove while its disk was full: a half-unpacked
// layer. It does not try again by itself before another snapshot has been removed.
func (e *Engine) reclaim(ctx context.Context) error {
	key := "muster-reclaim-" + uuid.NewString()
	if _, err := e.snapshots().Prepare(ctx, key, ""); err != nil {
		return err
	}
	if err := e.snapshots().Remove(ctx, key); err != nil {
		return err
	}
	return e.collect(ctx)
}

// dropOldLeases removes the leases of earlier lives of the caller, once, before the first lease of this
// one: whoever held them has died.
func (e *Engine) dropOldLeases(ctx context.Context) error {
	e.leases.Lock()
	defer e.leases.Unlock()
	if e.leasesDropped {
		return nil
	}
	if err := e.dropLeases(ctx); err != nil {
		return fmt.Errorf("drop old leases: %w", err)
	}
	e.leasesDropped = true
	return nil
}

// dropLeases removes all leases of the namespace.
func (e *Engine) dropLeases(ctx context.Context) error {
	held, err := e.client.LeasesService().List(ctx)
	if err != nil {
		return err
	}
	for _, lease := range held {
		if err := e.client.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// fetchLeased is fetch with a lease in ctx.
func (e *Engine) fetchLeased(ctx context.Context, url string, src source) (*image, error) {
	record, err := e.client.ImageService().Get(ctx, src.key)
	if errdefs.IsNotFound(err) {
		record, err = src.fetch(ctx, src.key)
	}
	if err != nil {
		return nil, err
	}
	unpacked := client.NewImageWithPlatform(e.client, record, e.platform)
	done, err := unpacked.IsUnpacked(ctx, e.cfg.Snapshotter)
	if err == nil && !done {
		err = unpacked.Unpack(ctx, e.cfg.Snapshotter)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	// The record comes last: what fails before is not kept.
	if _, err := e.client.ImageService().Create(ctx, record); err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, fmt.Errorf("image record: %w", err)
	}
	img, err := e.inspect(ctx, unpacked)
	if err != nil {
		return nil, fmt.Errorf("read what is in it: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.images) >= maxCachedImages {
		clear(e.images)
	}
	e.images[src.key] = img
	return img, nil
}

// forget drops what is remembered of images, for when it turns out to be wrong.
func (e *Engine) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.images)
}

// inspect reads an unpacked image; ctx has a lease.
func (e *Engine) inspect(ctx context.Context, from client.Image) (*image, error) {
	spec, err := from.Spec(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := from.RootFS(ctx)
	if err != nil {
		return nil, err
	}
	return &image{name: from.Name(), chain: identity.ChainID(layers).String(), config: spec.Config}, nil
}

// readDocument reads an index, manifest or configuration.
type readDocument func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)

// checkPlatform refuses an image without a variant for this machine, and says which it has.
func (e *Engine) checkPlatform(ctx context.Context, desc ocispec.Descriptor, read readDocument) error {
	has, err := platformsOf(ctx, desc, read)
	if err != nil {
		return err
	}
	if len(has) == 0 || slices.ContainsFunc(has, e.platform.Match) {
		return nil
	}
	var names []string
	for _, p := range has {
		names = append(names, platforms.Format(p))
	}
	slices.Sort(names)
	return fmt.Errorf("it has no %s variant; it has %s: build or choose one for this platform",
		platforms.Format(platforms.DefaultSpec()), strings.Join(slices.Compact(names), ", "))
}

// readAll reads a document of at most maxDocumentBytes.
func readAll(r io.Reader, desc ocispec.Descriptor) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDocumentBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDocumentBytes {
		return nil, fmt.Errorf("document %s has more than %d bytes", desc.Digest, maxDocumentBytes)
	}
	return text, nil
}
