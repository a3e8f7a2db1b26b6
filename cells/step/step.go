// Package step says what runs in one container and in which order: setup, the action, sidecars and
// the monitor, each a tree of actions as clients write them. It starts processes, moves files and writes
// logs only through a Host. It is no CORE, for it waits; but it waits for nothing but its Host and
// package time, so it runs under virtual time (testing/synctest).
//
// The same code runs inside a container, as the init of it (cells/guest), and in the engine without
// containers (cells/inmem). It needs nobody outside but for downloads and uploads, so a rep that
// restarts changes nothing for it.
//
// # How an action ends
//
// An action ends well or with an error. What the action does on an interrupt, the end of its context, is
// part of it: a run action sends SIGTERM, and SIGKILL when the graceful interval is over; the others pass
// the interrupt on and wait. An error has a text for people, but for the two of an interrupt
// (cancelled, exceeded graceful shutdown interval), which are left out of joined texts.
//
//	run          its process ended with status 0; ready once it was started
//	serial       all did, one after another; ready with the last
//	parallel     all did, after all have ended; ready when all are
//	codependent  never: the first end, even with 0, interrupts the others
//	timeout      its action did, in time; else that is interrupted and waited for
//	try          always
//	emit         its action did; says so before and after
//	download, upload   the file has arrived; ready from the start
package step

import (
	"context"
	"syscall"
	"time"

	"muster/bbs/lrp"
)

// Program is all that runs in one container.
type Program struct {
	Setup    *lrp.Action   // runs to its end before all others; nil: none
	Action   *lrp.Action   // the app or the task
	Sidecars []*lrp.Action // beside the action: the end of any ends the container
	Monitor  *Monitor      // health check as an action; nil: none
	// Checked says that the cell makes health checks of its own: an action that ended with status
	// 0 has become a daemon, and the checks decide.
	Checked bool
	// ResultFile is read when the action of a task has ended well; empty: none.
	ResultFile string

	Source   string        // of log lines whose action names none; empty: DefaultSource
	Graceful time.Duration // from SIGTERM to SIGKILL
	// Env holds NAME=value for every process, later ones win; those of the action come behind it, and
	// LastEnv behind these.
	Env, LastEnv []string
	User         string // of run actions that name none; empty: root
	// LogBytes bounds what all processes together write to the log, in bytes a second: 0 nothing
	// passes, negative no bound. LogLines is the operator's bound in lines a second, 0: none.
	LogBytes, LogLines int64
}

// Monitor is a health check that is an action: an instance is healthy when it ends well.
type Monitor struct {
	Action       *lrp.Action
	StartTimeout time.Duration // until it must have passed once; 0: for ever
	StartEvery   time.Duration // longest pause between attempts until it passed
	Every        time.Duration // pause between attempts after that
}

// DefaultSource is the log source of what names none.
const DefaultSource = "LOG"

// Stream is one of the two outputs of a process.
type Stream int

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Host is what a program runs on. All methods may be called concurrently.
type Host interface {
	// Start starts a process. The error says what is wrong with it, for people.
	Start(p Process) (Running, error)
	// Download fetches the nth file of the program (see Transfers) and extracts it; cached says that it
	// was not moved over the network. The error is for people. The end of ctx gives up.
	Download(ctx context.Context, n int, a *lrp.DownloadAction) (size int64, cached bool, err error)
	// Upload brings the nth file of the program to where it belongs.
	Upload(ctx context.Context, n int, a *lrp.UploadAction) (size int64, err error)
	// ReadFile returns a file of the container, at most limit bytes of it and one more if it is longer.
	ReadFile(path string, limit int) ([]byte, error)
	// Log writes a line, without its end, to the log of the container. Lines of the cell do not count
	// for its limits.
	Log(source string, stream Stream, line string)
	// Tell tells what happened, to whoever looks after the container.
	Tell(Event)
}

// Process is what Host.Start starts.
type Process struct {
	Path   string   // looked up in the PATH of Env when it holds no slash
	Args   []string // without the program
	Env    []string // NAME=value; later ones win
	Dir    string   // empty: the home of the user; made when missing
	User   string   // name or uid[:gid] in the container; empty: root
	Nofile uint64   // most open files; 0: the host's default
	Source string   // of its lines in the log
	// Output takes what it writes on both streams instead of the log; nil: the log.
	Output Output
	Files  []lrp.File // to be there, read-only for the process, before it starts
}

// Output is where the output of a process goes instead of the log; its Write is called from several
// goroutines, but not at once.
type Output interface{ Write(p []byte) (int, error) }

// Running is a process that was started.
type Running interface {
	// Signal sends a signal to the process alone; one that has ended is no error.
	Signal(syscall.Signal)
	// Ended is closed when the process has ended and its output was read; Exit is valid then.
	Ended() <-chan struct{}
	Exit() Exit
}

// Exit says how a process ended.
type Exit struct {
	Code        int  // 128+n when ended by signal n
	OutOfMemory bool // the kernel ended something in the container for want of memory while it ran
}

// EventName names something that happened to a program.
type EventName string

// The events.
const (
	Begun EventName = "begun" // setup is over; the action starts
	Ready EventName = "ready" // all is started, and healthy as far as the program knows
	Wants EventName = "wants" // the nth file has to be moved
	Ended EventName = "ended" // all has ended; see Result
)

// Event is something that happened to a program. Each but Wants happens at most once, in this order.
type Event struct {
	At     time.Time
	Name   EventName
	N      int    `json:",omitempty"` // of Wants
	Bytes  int64  `json:",omitempty"` // of Wants, for an upload: the size of the file
	Path   string `json:",omitempty"` // of Wants, for an upload: the file in the container
	Result Result // of Ended
}

// Result says how a program ended.
type Result struct {
	Failed bool   `json:",omitempty"`
	Reason string `json:",omitempty"` // why it failed, for people
	Code   int    `json:",omitempty"` // exit status of the process that made it fail, else 1; 0 when it did not
	// OutOfMemory says that this process was short of memory.
	OutOfMemory bool   `json:",omitempty"`
	Output      string `json:",omitempty"` // of the result file
}

// MaxResult is the most bytes that a result file may have (upstream's).
const MaxResult = 51_200
