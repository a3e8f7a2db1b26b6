// Package guest is the init of every container: the process with PID 1, which runs a step.Program.
//
// It is a static program of its own (cmd/muster-init) without a connection to anybody. The engine mounts a
// directory read-only at Dir, with
//
//	init              this program
//	program.json      the step.Program
//	inbox/N.tar       the archive of a download, there before its answer
//	inbox/N.json      the record.Answer to transfer N of the program
//
// and takes standard output as the log and standard error as the events (see package record). SIGTERM
// interrupts the program; SIGUSR1 says that there is something new in the inbox; other signals are
// ignored. The init ends with status 0 after it has told how its program ended; any other status is that
// of an init that could not, or was killed. What is left in the container ends with it.
//
// So nothing of what runs in a container needs a rep: that may end, be upgraded and come back.
//
// # Processes
//
// Each process is started through a copy of the init (see trampoline) which becomes what the process is
// to be, user, limits and directory, and then executes it. What goes wrong on the way comes back as an
// error. The init is the parent of all and reaps whatever loses its parent.
package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"muster/cells/step"
)

// Dir is where the engine mounts what belongs to the init.
const Dir = "/.muster"

const (
	// memoryLimit is what the init lets its garbage grow to, in bytes. It collects for no other
	// reason, so an init with nothing to do does not wake.
	memoryLimit = 16 << 20
	// exitBroken is the status of an init that could not do its work.
	exitBroken = 70
)

// Main is the program; args are its arguments, with its name. The only one is a directory to use instead
// of Dir.
func Main(args []string) int {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	if len(args) == 2 && args[1] == trampolineArg {
		return trampoline()
	}
	dir := Dir
	if len(args) > 1 {
		dir = args[1]
	}
	if err := run(dir); err != nil {
		fmt.Fprintln(os.Stderr, "muster-init:", err)
		return exitBroken
	}
	return 0
}

func run(dir string) error {
	// No process of the container, not even of its root, may look into this one.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide from other processes: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "program.json"))
	if err != nil {
		return err
	}
	var program step.Program
	if err := json.Unmarshal(text, &program); err != nil {
		return fmt.Errorf("program.json: %w", err)
	}
	logs, err := newLog(os.Stdout, program)
	if err != nil {
		return err
	}
	g := &guest{program: program, log: logs, children: newReaper(), inbox: newInbox(filepath.Join(dir, "inbox"))}
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	g.listen(interrupt)
	step.Run(ctx, program, g)
	return nil
}

// guest is what a program runs on.
type guest struct {
	program  step.Program
	log      *log
	children *reaper
	inbox    *inbox
}

var _ step.Host = (*guest)(nil)

// listen takes signals from now on.
func (g *guest) listen(interrupt func()) {
	// Each of these has room for one: a second of the kind says nothing new.
	term, news, child := make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(make(chan os.Signal, 1)) // all others are taken and dropped; ignored ones would be inherited
	signal.Notify(term, syscall.SIGTERM)
	signal.Notify(news, syscall.SIGUSR1)
	signal.Notify(child, syscall.SIGCHLD)
	go func() {
		for {
			select {
			case <-term:
				interrupt()
			case <-news:
				g.inbox.look()
			case <-child:
				g.children.reap()
			}
		}
	}()
}

// Log writes a line of the cell.
func (g *guest) Log(source string, stream step.Stream, line string) { g.log.add(source, stream, line) }

// Tell writes an event. It must not be lost, so it waits for as long as it takes.
func (g *guest) Tell(ev step.Event) { tell(os.Stderr, ev) }
