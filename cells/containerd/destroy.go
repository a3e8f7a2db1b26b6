package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"muster/cells/engine"
)

// Destroy removes a container. Each step takes what is gone already for done, and the directory of
// the container goes last, so whatever fails, or whoever dies in between, List still shows it and
// Destroy can be called again.
func (e *Engine) Destroy(ctx context.Context, id engine.ID) error {
	if len(id) > maxID || !idPattern.MatchString(string(id)) {
		return fmt.Errorf("destroy container %q: that is no container ID", id)
	}
	defer e.step(id, "destroy")()
	ctx, cancel := context.WithTimeout(e.scope(ctx), callTimeout)
	defer cancel()
	if err := e.destroy(ctx, id); err != nil {
		return fmt.Errorf("destroy container %s: %w", id, err)
	}
	return nil
}

func (e *Engine) destroy(ctx context.Context, id engine.ID) error {
	if err := e.killTask(ctx, id); err != nil {
		return err
	}
	ended := make(chan bool, 1) // tells whether its processes have ended
	both := new(errgroup.Group) // one that fails does not stop the other
	both.Go(func() error {
		if !<-ended {
			return nil // the other error says why
		}
		return e.disconnect(ctx, id)
	})
	both.Go(func() error {
		defer close(ended)
		return e.unfurnish(ctx, id, ended)
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if err := removeCgroups(e.cgroup(id)); err != nil {
		return err
	}
	return os.RemoveAll(e.paths.container(id))
}

// killTask sends SIGKILL to the process of a container.
func (e *Engine) killTask(ctx context.Context, id engine.ID) error {
	err := e.Kill(ctx, id, syscall.SIGKILL)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

// disconnect undoes the network of a container, whose processes have ended: its rules go first, and its
// address, which another one may get, after them.
func (e *Engine) disconnect(ctx context.Context, id engine.ID) error {
	defer e.step(id, "disconnect")()
	if err := e.guard.remove(id); err != nil {
		return err
	}
	if err := dropUnmounted(e.paths.netns(id)); err != nil {
		return err
	}
	var wanted asked
	if e.paths.read(id, specFile, &wanted) { // else the network was never touched
		if err := e.network.detach(ctx, id, wanted); err != nil {
			return err
		}
	}
	return removeNetns(e.paths.netns(id))
}

// unfurnish removes task, snapshot and record; see deleteTask for ended.
func (e *Engine) unfurnish(ctx context.Context, id engine.ID, ended chan<- bool) error {
	if err := e.deleteTask(ctx, id, ended); err != nil {
		return err
	}
	defer e.step(id, "remove")()
	if err := e.snapshots().Remove(ctx, string(id)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := e.client.ContainerService().Delete(ctx, string(id)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("container record: %w", err)
	}
	return nil
}

// deleteTask waits for the end of a killed process and removes its task, shim and runc's state included. It
// sends to ended as soon as no process is left, or not at all.
func (e *Engine) deleteTask(ctx context.Context, id engine.ID, ended chan<- bool) error {
	defer e.step(id, "delete-task")()
	service := e.client.TaskService()
	_, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: string(id)})
	known := !errdefs.IsNotFound(native(err))
	if err != nil && known {
		return fmt.Errorf("wait for the killed process: %w", native(err))
	}
	if known {
		ended <- true
	}
	_, err = service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: string(id)})
	if err = native(err); known && err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("task: %w", err)
	}
	if _, left := os.Lstat(e.runcDir(id)); known && err == nil && errors.Is(left, fs.ErrNotExist) {
		return nil
	}
	err = e.endStrays(ctx, id)
	if err == nil && !known {
		ended <- true
	}
	return err
}
