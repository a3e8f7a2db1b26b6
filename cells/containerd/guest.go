package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/guest"
	"muster/cells/guest/record"
	"muster/cells/step"
)

// The init of every container is cells/guest. What it is given is a directory of the cell, mounted
// read-only; what it tells are its outputs: the log, and the events.
const (
	guestInit   = guest.Dir + "/init"
	programFile = "guest/program.json" // in the directory of the container; written last
	inboxDir    = "inbox"
	logFile     = "log"
	eventsFile  = "events"
	notesFile   = "notes" // lines of the cell, in the form of the log
	// initPids are the threads that the init needs, besides the limit of the app.
	initPids = 16
	// toldWithin is how long the last words of an init that has ended may be on their way.
	toldWithin = 5 * time.Second
)

func (p paths) guest(id engine.ID, names ...string) string {
	return filepath.Join(append([]string{p.container(id), "guest"}, names...)...)
}

// init is where this life of the engine keeps the program that is linked into guest directories. It is
// replaced, never written to: running containers have the one that they began with.
func (p paths) init() string { return filepath.Join(p.root, "init") }

// haveInit returns when the init is in the state directory.
func (e *Engine) haveInit() error {
	e.installing.Do(func() { e.installErr = e.installInit() })
	return e.installErr
}

// installInit copies the init into the state directory, unless that has the same one.
func (e *Engine) installInit() error {
	want, err := os.ReadFile(e.cfg.InitPath)
	if err != nil {
		return fmt.Errorf("init_path: %w", err)
	}
	if have, err := os.ReadFile(e.paths.init()); err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err := os.MkdirAll(e.paths.root, 0o711); err != nil {
		return noSpace(err, e.paths.root)
	}
	fresh, err := os.CreateTemp(e.paths.root, "init-")
	if err != nil {
		return noSpace(err, e.paths.root)
	}
	defer os.Remove(fresh.Name())
	_, err = fresh.Write(want)
	if err := errors.Join(err, fresh.Chmod(0o755), fresh.Close()); err != nil {
		return noSpace(err, e.paths.root)
	}
	return os.Rename(fresh.Name(), e.paths.init())
}

// fillGuest makes the guest directory of a container, without the program.
func (e *Engine) fillGuest(id engine.ID) error {
	if err := e.haveInit(); err != nil {
		return err
	}
	if err := os.MkdirAll(e.paths.guest(id, inboxDir), 0o700); err != nil {
		return noSpace(err, e.paths.root)
	}
	if err := os.Link(e.paths.init(), e.paths.guest(id, filepath.Base(guestInit))); err != nil {
		return noSpace(err, e.paths.root)
	}
	return nil
}

// writeProgram gives the init what it is to run.
func (e *Engine) writeProgram(spec engine.Spec, img *image, address string) error {
	p, err := spec.Program.WithoutAddresses()
	if err != nil {
		return err
	}
	p.Env = slices.Concat(img.config.Env, p.Env)
	if p.User == "" {
		p.User = img.config.User
	}
	if spec.AddressEnv != "" {
		p.LastEnv = append(slices.Clip(p.LastEnv), spec.AddressEnv+"="+address)
	}
	return e.paths.write(spec.ID, programFile, p)
}

// Events returns what the program of a container has told.
func (e *Engine) Events(ctx context.Context, id engine.ID, n int) ([]step.Event, error) {
	changed, stop, err := e.watch.follow(e.paths.file(id, eventsFile))
	if err != nil {
		return nil, gone("events of", id, err)
	}
	defer stop()
	for {
		told, err := e.told(id)
		if err != nil {
			return nil, err
		}
		if len(told) > n {
			return told[n:], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("events of container %s: %w", id, ctx.Err())
		}
	}
}

// told returns all events so far. What is not whole is still being written.
func (e *Engine) told(id engine.ID) ([]step.Event, error) {
	text, err := os.ReadFile(e.paths.file(id, eventsFile))
	if err != nil {
		return nil, gone("events of", id, err)
	}
	var all []step.Event
	for line := range bytes.Lines(text) {
		if ev, err := record.ParseEvent(line); err == nil {
			all = append(all, ev)
		}
	}
	return all, nil
}

// result returns how the program of a container said that it ended; nil: it did not.
func (e *Engine) result(id engine.ID) *step.Result {
	told, err := e.told(id)
	if err != nil || len(told) == 0 || told[len(told)-1].Name != step.Ended {
		return nil
	}
	return &told[len(told)-1].Result
}

// lastWords returns how the program of a container that has ended by itself said that it did. That was
// written before the end; the shim may still be passing it on.
func (e *Engine) lastWords(ctx context.Context, id engine.ID) *step.Result {
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	for n := 0; ; {
		told, err := e.Events(ctx, id, n)
		if err != nil {
			return nil
		}
		for _, ev := range told {
			if ev.Name == step.Ended {
				return &ev.Result
			}
		}
		n += len(told)
	}
}

// Deliver answers a transfer. The archive comes before the answer that tells of it.
func (e *Engine) Deliver(ctx context.Context, id engine.ID, n int, answer engine.Delivery) error {
	failed := func(err error) error {
		return fmt.Errorf("deliver to container %s: %w", id, noSpace(err, e.cfg.StateDir))
	}
	to := func(suffix string) string { return e.paths.guest(id, inboxDir, strconv.Itoa(n)+suffix) }
	if _, err := os.Stat(e.paths.guest(id, inboxDir)); err != nil {
		return gone("deliver to", id, err)
	}
	if _, err := os.Stat(to(".tar")); err == nil {
		return nil // the first archive counts
	}
	if answer.Archive != "" {
		if err := place(answer.Archive, to(".tar")); err != nil {
			return failed(err)
		}
	}
	err := e.paths.write(id, filepath.Join("guest", inboxDir, strconv.Itoa(n)+".json"), record.Answer{
		Size: answer.Size, Cached: answer.Cached, Error: answer.Error,
	})
	if err != nil {
		return failed(err)
	}
	return e.Kill(ctx, id, syscall.SIGUSR1)
}

// Answered tells whether a transfer was answered.
func (e *Engine) Answered(_ context.Context, id engine.ID, n int) (bool, error) {
	if _, err := os.Stat(e.paths.guest(id, inboxDir)); err != nil {
		return false, gone("inbox of", id, err)
	}
	_, err := os.Stat(e.paths.guest(id, inboxDir, strconv.Itoa(n)+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// place links or copies a file, whole or not at all, in the place of what may be there.
func place(from, to string) error {
	temporary := to + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if os.Link(from, temporary) != nil { // another file system
		if err := copyFile(from, temporary); err != nil {
			return errors.Join(err, os.Remove(temporary))
		}
	}
	return os.Rename(temporary, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Open opens a regular file of a running container. No link leads out of it, and what only looks like a
// file (proc, sys) is none.
func (e *Engine) Open(ctx context.Context, id engine.ID, path string) (engine.File, error) {
	answer, err := e.client.TaskService().Get(e.scope(ctx), &tasks.GetRequest{ContainerID: string(id)})
	if err = native(err); errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("open %s in container %s: %w", path, id, engine.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s in container %s: %w", path, id, away(err))
	}
	file, err := openIn(fmt.Sprintf("/proc/%d/root", answer.Process.Pid), path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open %s in container %s: %w", path, id, err)
	}
	var on unix.Statfs_t
	info, err := file.Stat()
	if err == nil {
		err = unix.Fstatfs(int(file.Fd()), &on)
	}
	if err == nil && (!info.Mode().IsRegular() || on.Type == unix.PROC_SUPER_MAGIC || on.Type == unix.SYSFS_MAGIC) {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s in container %s: %w", path, id, err), file.Close())
	}
	return file, nil
}

// gone turns the absence of a file into that of its container.
func gone(doing string, id engine.ID, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s container %s: %w", doing, id, engine.ErrNotFound)
	}
	return fmt.Errorf("%s container %s: %w", doing, id, err)
}
