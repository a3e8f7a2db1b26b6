package containerd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"muster/cells/engine"
	"muster/cells/step"
)

const (
	// waitAgain and waitAgainMost bound the pauses between attempts to wait through a containerd
	// that is away.
	waitAgain     = 50 * time.Millisecond
	waitAgainMost = time.Second
	// killedCode is the exit code of a process whose shim is gone: whoever took the shim, or
	// the whole machine, took the process with it by SIGKILL.
	killedCode = 128 + int(syscall.SIGKILL)
)

// Wait returns how the process of a container ended, once it has. A containerd that restarts or is
// away is waited for: only its word, or the absence of the task, is an exit.
func (e *Engine) Wait(ctx context.Context, id engine.ID) (engine.Exit, error) {
	ctx = e.scope(ctx)
	pause := waitAgain
	for {
		ended, err := e.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: string(id)})
		if err == nil {
			var result *step.Result
			if ended.ExitStatus == 0 {
				result = e.lastWords(ctx, id)
			}
			return e.exit(id, ended.ExitStatus, ended.ExitedAt.AsTime(), result), nil
		}
		if ctx.Err() != nil {
			return engine.Exit{}, fmt.Errorf("wait for container %s: %w", id, ctx.Err())
		}
		if errdefs.IsNotFound(native(err)) {
			exit, err := e.exitWithoutTask(ctx, id)
			if err == nil || !errdefs.IsUnavailable(err) {
				return exit, err
			}
		}
		select {
		case <-ctx.Done():
			return engine.Exit{}, fmt.Errorf("wait for container %s: %w", id, ctx.Err())
		case <-time.After(pause):
			pause = min(2*pause, waitAgainMost)
		}
	}
}

// exitWithoutTask answers for a container that containerd says has no task.
func (e *Engine) exitWithoutTask(ctx context.Context, id engine.ID) (engine.Exit, error) {
	_, err := e.client.ContainerService().Get(ctx, string(id))
	if errdefs.IsNotFound(err) {
		return engine.Exit{}, fmt.Errorf("wait for container %s: %w", id, engine.ErrNotFound)
	}
	if err != nil {
		return engine.Exit{}, err
	}
	if !e.paths.has(id, startedFile) {
		return engine.Exit{}, fmt.Errorf("wait for container %s: it was never started: %w", id, engine.ErrNotFound)
	}
	return engine.Exit{Code: killedCode, OOMKilled: e.outOfMemory(id), At: time.Now()}, nil
}

// exit describes an exit that containerd told of. An init that ends by itself does so with status 0, and
// has told how its program ended.
func (e *Engine) exit(id engine.ID, code uint32, at time.Time, result *step.Result) engine.Exit {
	if result != nil {
		return engine.Exit{Code: result.Code, OOMKilled: result.OutOfMemory, At: at, Result: result}
	}
	return engine.Exit{Code: int(code), OOMKilled: code != 0 && e.outOfMemory(id), At: at}
}

// Kill signals the init of a container.
func (e *Engine) Kill(ctx context.Context, id engine.ID, signal syscall.Signal) error {
	ctx = e.scope(ctx)
	_, err := e.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: string(id), Signal: uint32(signal)})
	err = native(err)
	if err == nil || strings.Contains(err.Error(), "process already finished") {
		return nil
	}
	if !errdefs.IsNotFound(err) {
		return fmt.Errorf("signal container %s: %w", id, err)
	}
	if _, err := e.client.ContainerService().Get(ctx, string(id)); errdefs.IsNotFound(err) {
		return fmt.Errorf("signal container %s: %w", id, engine.ErrNotFound)
	}
	return nil // it has a record but no process any more
}

// List returns all containers and what is left of any, ordered by ID. The owner of a cell gives those their
// rules again that have lost them.
func (e *Engine) List(ctx context.Context) ([]engine.Container, error) {
	ctx = e.scope(ctx)
	records, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	answer, err := e.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", native(err))
	}
	processes := map[engine.ID]*task.Process{}
	for _, p := range answer.Tasks {
		processes[engine.ID(p.ID)] = p
	}
	found := map[engine.ID]engine.Container{}
	for _, record := range records {
		id := engine.ID(record.ID)
		found[id] = e.describe(engine.Container{ID: id, Labels: record.Labels, CreatedAt: record.CreatedAt}, processes[id])
	}
	traces, err := e.traces(ctx)
	if err != nil {
		return nil, err
	}
	for id := range processes { // made by containerd for a caller that died meanwhile
		traces = append(traces, id)
	}
	ruled, err := e.guard.list()
	if err != nil {
		return nil, err
	}
	traces = append(traces, ruled...)
	for _, id := range traces {
		if _, ok := found[id]; !ok {
			var wanted asked
			e.paths.read(id, specFile, &wanted)
			found[id] = engine.Container{ID: id, Status: engine.Partial, Ports: wanted.Ports}
		}
	}
	all := make([]engine.Container, 0, len(found))
	for _, c := range found {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b engine.Container) int { return cmp.Compare(a.ID, b.ID) })
	e.protectAgain(ctx, all, ruled)
	return all, nil
}

// traces returns the containers that have left something besides a record: files, a network
// namespace, a snapshot.
func (e *Engine) traces(ctx context.Context) ([]engine.ID, error) {
	ids, err := e.paths.known()
	if err != nil {
		return nil, err
	}
	err = e.snapshots().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		ids = append(ids, engine.ID(info.Labels[snapshotLabel]))
		return nil
	}, fmt.Sprintf("labels.%q", snapshotLabel))
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return ids, nil
}

// describe completes what is known of a container that has a record.
func (e *Engine) describe(c engine.Container, p *task.Process) engine.Container {
	var wanted asked
	var got given
	e.paths.read(c.ID, specFile, &wanted)
	complete := e.paths.read(c.ID, networkFile, &got) && e.paths.has(c.ID, programFile)
	c.Ports, c.Address = wanted.Ports, got.Address
	switch {
	case p == nil && e.paths.has(c.ID, startedFile):
		c.Status, c.Exit = engine.Exited, engine.Exit{Code: killedCode, OOMKilled: e.outOfMemory(c.ID), At: time.Now()}
	case p == nil || !complete:
		c.Status = engine.Partial
	case p.Status == task.Status_CREATED:
		c.Status = engine.Created
	case p.Status == task.Status_STOPPED:
		c.Status, c.Exit = engine.Exited, e.exit(c.ID, p.ExitStatus, p.ExitedAt.AsTime(), e.result(c.ID))
	default:
		c.Status = engine.Running // also when the shim does not answer just now; Wait finds out
	}
	return c
}
