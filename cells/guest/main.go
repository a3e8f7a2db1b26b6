package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/guest/internal/helper"
	"muster/cells/step"
)

const (
	// Dir is where the cell puts what is for the init.
	Dir = "/.muster"
	// Broken is the exit status of an init that broke down.
	Broken = 70
)

// Main is the whole process, for its arguments; the result is its exit status.
func Main(args []string) int {
	dir := Dir
	if len(args) > 1 {
		if verb := helper.Verb(args[1]); verb.Known() {
			return helper.Main(verb)
		}
		dir = args[1]
	}
	return Run(dir)
}

// Run runs the program that the cell has put into a directory, to its end.
func Run(dir string) int {
	signals := catch()
	frugal()
	if err := alone(); err != nil {
		return broken(newEvents(), err)
	}
	h, err := newHost(dir)
	if err != nil {
		return broken(newEvents(), err)
	}
	defer h.guard()
	program, err := load(filepath.Join(dir, "program.json"))
	if err != nil {
		return broken(h.events, err)
	}
	h.program = program
	h.log.limit = newLimiter(program.LogBytes, program.LogLines)
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	go h.listen(signals, interrupt)
	step.Run(ctx, program, h)
	h.end()
	return 0 // how the program ended was told
}

// frugal makes the runtime take little memory and few threads: there are as many inits as containers.
func frugal() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(20)
}

// alone keeps processes of the container away from the memory of the init, and makes it the parent of all
// whose own has ended, which it is anyway as the first of a namespace.
func alone() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep the memory of the init private: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	return nil
}

func load(path string) (step.Program, error) {
	var p step.Program
	text, err := os.ReadFile(path)
	if err != nil {
		return p, fmt.Errorf("program of the container: %w", err)
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("program of the container in %s: %w", path, err)
	}
	return p, nil
}

// broken tells that the init cannot do its work.
func broken(events *events, err error) int {
	events.tell(step.Event{At: time.Now(), Name: step.Ended, Result: step.Result{
		Failed: true, Reason: fmt.Sprintf("init of the container: %v", err), Code: Broken,
	}})
	return Broken
}

// guard ends the init when the goroutine that defers it panics: as the first process it takes the
// container with it, and the cell learns why.
func (h *host) guard() {
	cause := recover()
	if cause == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "panic: %v\n%s\n", cause, debug.Stack())
	os.Exit(broken(h.events, fmt.Errorf("panic: %v", cause)))
}

// end ends every process that is left, and gives what they wrote a moment to arrive.
func (h *host) end() {
	deadline := time.Now().Add(endWait)
	for time.Now().Before(deadline) && !h.children.killAll() {
		time.Sleep(time.Millisecond)
	}
	heard := make(chan struct{})
	go func() {
		h.pumps.Wait()
		close(heard)
	}()
	select {
	case <-heard:
	case <-time.After(drainWait):
	}
}

// endWait is how long the end of killed processes is awaited; the kernel ends what is left when the init
// does.
const endWait = 2 * time.Second

// listen does what signals ask for.
func (h *host) listen(signals <-chan os.Signal, interrupt func()) {
	defer h.guard()
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			h.children.reap()
		case syscall.SIGTERM:
			interrupt()
		case syscall.SIGUSR1:
			h.inbox.look()
		}
	}
}
