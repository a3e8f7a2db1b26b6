package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sync/errgroup"

	"muster/cells/engine"
)

// snapshotLabel names the container of a snapshot.
const snapshotLabel = "muster.container"

// Create makes a container; see the package for what belongs to it and in which order it is made.
func (e *Engine) Create(ctx context.Context, spec engine.Spec) (engine.Container, error) {
	if err := checkSpec(spec); err != nil {
		return engine.Container{}, err
	}
	defer e.step(spec.ID, "create")()
	ctx = e.scope(ctx)
	if err := e.paths.claim(spec); err != nil {
		return engine.Container{}, err
	}
	made, err := e.create(ctx, spec)
	if err == nil {
		return made, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if left := e.Destroy(undo, spec.ID); left != nil {
		err = fmt.Errorf("%w; and what was made of it is left: %w", err, left)
	}
	return engine.Container{}, fmt.Errorf("create container %s: %w", spec.ID, away(err))
}

func (e *Engine) create(ctx context.Context, spec engine.Spec) (engine.Container, error) {
	if err := e.paths.fill(spec, e.cfg.DNS); err != nil {
		return engine.Container{}, err
	}
	if err := e.fillGuest(spec.ID); err != nil {
		return engine.Container{}, err
	}
	made := engine.Container{
		ID: spec.ID, Labels: maps.Clone(spec.Labels), Status: engine.Created, Ports: slices.Clone(spec.Ports), CreatedAt: time.Now(),
	}
	netns := make(chan struct{}) // closed when the network namespace is there
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		made.Address, err = e.connect(ctx, spec, netns)
		return err
	})
	var img *image
	both.Go(func() (err error) {
		img, err = e.furnish(ctx, spec, netns)
		return err
	})
	if err := both.Wait(); err != nil {
		return engine.Container{}, err
	}
	return made, e.writeProgram(spec, img, made.Address)
}

// connect makes the network of a container, with the rules for what it may reach.
func (e *Engine) connect(ctx context.Context, spec engine.Spec, netns chan<- struct{}) (string, error) {
	defer e.step(spec.ID, "network")()
	if _, err := e.network.prepare(ctx); err != nil {
		return "", err
	}
	if err := makeNetns(e.paths.netns(spec.ID)); err != nil {
		return "", noSpace(err, e.cfg.StateDir)
	}
	close(netns)
	done := e.step(spec.ID, "attach")
	got, err := e.network.attach(ctx, spec.ID, askedBy(spec))
	done()
	if err != nil {
		return "", err
	}
	if err := e.protect(spec.ID, got, spec.Egress); err != nil {
		return "", err
	}
	address := got.addresses[0].String()
	hosts := hostsFile(address, hostname(spec.ID))
	// Written in place: the container has this very file mounted.
	if err := os.WriteFile(e.paths.file(spec.ID, "hosts"), []byte(hosts), 0o644); err != nil {
		return "", noSpace(err, e.cfg.StateDir)
	}
	return address, e.paths.write(spec.ID, networkFile, given{Address: address})
}

// furnish makes everything of a container but its network.
func (e *Engine) furnish(ctx context.Context, spec engine.Spec, netns <-chan struct{}) (*image, error) {
	done := e.step(spec.ID, "image")
	img, err := e.image(ctx, spec)
	done()
	if err != nil {
		return nil, err
	}
	s, err := e.ociSpec(ctx, spec)
	if err != nil {
		return nil, err
	}
	packed, err := typeurl.MarshalAny(s)
	if err != nil {
		return nil, err
	}
	done = e.step(spec.ID, "record")
	_, err = e.client.ContainerService().Create(ctx, containers.Container{
		ID: string(spec.ID), Labels: spec.Labels, Image: img.name, Spec: packed,
		Runtime:     containers.RuntimeInfo{Name: e.cfg.Runtime},
		Snapshotter: e.cfg.Snapshotter, SnapshotKey: string(spec.ID),
	})
	done()
	if err != nil {
		return nil, fmt.Errorf("container record: %w", noSpace(err, e.cfg.StateDir))
	}
	mounts, err := e.snapshot(ctx, spec, img)
	if err != nil {
		return nil, err
	}
	select {
	case <-netns:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return img, e.task(ctx, spec, mounts)
}

// snapshot makes the writable layer of a container.
func (e *Engine) snapshot(ctx context.Context, spec engine.Spec, img *image) ([]mount.Mount, error) {
	defer e.step(spec.ID, "snapshot")()
	label := snapshots.WithLabels(map[string]string{snapshotLabel: string(spec.ID)})
	mounts, err := e.snapshots().Prepare(ctx, string(spec.ID), img.chain, label)
	if errdefs.IsNotFound(err) { // somebody removed the image behind our back
		e.forget()
		if img, err = e.image(ctx, spec); err != nil {
			return nil, err
		}
		mounts, err = e.snapshots().Prepare(ctx, string(spec.ID), img.chain, label)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot of image %s: %w", spec.RootFS, noSpace(err, e.cfg.StateDir))
	}
	return mounts, nil
}

// task makes the process of a container up to the point where it waits to be started. It is not
// cancelled half-way: what a cancelled call leaves in shim and runc nobody could find.
func (e *Engine) task(ctx context.Context, spec engine.Spec, mounts []mount.Mount) error {
	defer e.step(spec.ID, "task")()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	// Plain paths of files that exist: the shim appends to each of them. With its file:// URIs it
	// writes both streams into one file.
	_, err := e.client.TaskService().Create(ctx, &tasks.CreateTaskRequest{
		ContainerID: string(spec.ID), Rootfs: mount.ToProto(mounts),
		Stdout: e.paths.file(spec.ID, logFile), Stderr: e.paths.file(spec.ID, eventsFile),
	})
	if err == nil {
		return nil
	}
	return fmt.Errorf("make the process: %w", noSpace(err, e.cfg.StateDir))
}

// Start runs the process of a created container.
func (e *Engine) Start(ctx context.Context, id engine.ID) error {
	defer e.step(id, "start")()
	ctx = e.scope(ctx)
	err := os.WriteFile(e.paths.file(id, startedFile), nil, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("start container %s: %w", id, engine.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", id, noSpace(err, e.cfg.StateDir))
	}
	_, err = e.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: string(id)})
	if err = native(err); errdefs.IsNotFound(err) {
		return fmt.Errorf("start container %s: %w: %w", id, engine.ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", id, away(noSpace(err, e.cfg.StateDir)))
	}
	return nil
}
