package containerd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"muster/cells/engine"
	"muster/internal/wait"
)

const (
	// diskEvery is the least time between two looks at the disk that a container uses.
	diskEvery = time.Minute
	// diskRest is how many times as long as a look took nothing is looked at: a look is a walk through all
	// files of a layer, and all of them together get one hundredth of a processor.
	diskRest = 99
	// diskTimeout bounds one look.
	diskTimeout = time.Minute
)

// disks is what is known of the disk that containers use.
type disks struct {
	mu     sync.Mutex
	layers map[engine.ID]layer
}

// layer is the size of a writable layer at a moment.
type layer struct {
	bytes int64
	at    time.Time
}

func (d *disks) of(id engine.ID) layer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.layers[id]
}

func (d *disks) set(id engine.ID, l layer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.layers == nil {
		d.layers = map[engine.ID]layer{}
	}
	d.layers[id] = l
}

// keep forgets all containers but these.
func (d *disks) keep(ids []engine.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := make(map[engine.ID]layer, len(ids))
	for _, id := range ids {
		if l, ok := d.layers[id]; ok {
			kept[id] = l
		}
	}
	d.layers = kept
}

// watchDisks looks at the disk of all containers, one after another, until ctx ends.
func (e *Engine) watchDisks(ctx context.Context) {
	for {
		began := time.Now()
		ids, err := e.paths.known()
		if err != nil {
			e.log.Error("disk usage of containers not looked at", slog.Any("error", err))
		} else {
			e.disks.keep(ids)
		}
		for _, id := range ids {
			if !wait.For(ctx, diskRest*e.lookAtDisk(ctx, id)) {
				return
			}
		}
		if !wait.For(ctx, e.diskEvery-time.Since(began)) {
			return
		}
	}
}

// lookAtDisk measures one container and returns how long that took.
func (e *Engine) lookAtDisk(ctx context.Context, id engine.ID) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	began := time.Now()
	bytes, err := e.layerBytes(ctx, id)
	switch {
	case err == nil:
		e.disks.set(id, layer{bytes, began})
	case !errdefs.IsNotFound(err) && ctx.Err() == nil:
		e.log.Warn("disk usage of a container not measured", slog.String("container", string(id)), slog.Any("error", err))
	}
	return time.Since(began)
}

// layerBytes returns the size of the writable layer of a container. The snapshotter walks through it; whatever
// keeps count of a layer by itself, such as a quota, answers faster, and belongs here.
func (e *Engine) layerBytes(ctx context.Context, id engine.ID) (int64, error) {
	usage, err := e.snapshots().Usage(e.scope(ctx), string(id))
	if err != nil {
		return 0, fmt.Errorf("size of the writable layer: %w", err)
	}
	return usage.Size, nil
}
