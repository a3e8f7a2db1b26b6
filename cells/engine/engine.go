// Package engine is the contract between a cell and whatever runs its containers, with one
// conformance suite (enginetest) that every implementation passes: cells/containerd drives
// containerd, cells/inmem runs nothing and is for tests and simulation.
//
// An engine holds no decisions: it makes, starts, signals, watches and destroys containers, and
// tells truthfully which there are. What a container is for is written on its labels, so that a rep
// that starts anew finds its containers again.
package engine

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"muster/bbs/lrp"
	"muster/cells/step"
)

// ID identifies a container: letters, digits and -, at most 64 characters.
type ID string

// Engine makes and destroys containers. All methods may be called concurrently; calls for one
// container are made one after another by its owner, except Wait, Events, Kill, Deliver,
// Answered, Open, Note and Logs.
type Engine interface {
	// Create makes a container: its image is fetched and unpacked, its network and ports are set
	// up, its program is not yet running. On an error nothing of it is left.
	Create(ctx context.Context, spec Spec) (Container, error)
	// Start runs the program of a created container.
	Start(ctx context.Context, id ID) error
	// Events returns what the program of a container has told, without the first n events; it waits until
	// there is more than that. It works for containers of an earlier life of the caller.
	Events(ctx context.Context, id ID, n int) ([]step.Event, error)
	// Wait returns when the program of a started container has ended, how it ended. It works for
	// containers of an earlier life of the caller, and may be called more than once.
	Wait(ctx context.Context, id ID) (Exit, error)
	// Kill signals the program: SIGTERM interrupts it (see step.Run), SIGKILL ends all its processes.
	// Other signals are ignored. A program that has ended is no error.
	Kill(ctx context.Context, id ID, signal syscall.Signal) error
	// Deliver answers the nth transfer of the program (see step.Event). The archive is not needed once it has
	// returned. After an archive further answers are ignored.
	Deliver(ctx context.Context, id ID, n int, answer Delivery) error
	// Answered tells whether a transfer of the program was answered.
	Answered(ctx context.Context, id ID, n int) (bool, error)
	// Open opens a regular file of a running container, as its program sees it.
	Open(ctx context.Context, id ID, path string) (File, error)
	// Destroy removes a container in any state and all that belongs to it. One that does not
	// exist is no error. On an error it can be called again.
	Destroy(ctx context.Context, id ID) error
	// List returns all containers of this engine's owner, half-made ones included.
	List(ctx context.Context) ([]Container, error)
	// Logs returns the log of a container so far, and with follow also what comes until the container is
	// destroyed or ctx ends. The log is kept from the making of the container on, through restarts of
	// the caller, up to the engine's limit; then the oldest part goes.
	Logs(ctx context.Context, id ID, follow bool) (Log, error)
	// Note adds lines to the log of a container that come from the cell.
	Note(ctx context.Context, id ID, lines ...Line) error
	// Usage returns what containers use. Those that have nothing to measure, because they are half-made or gone,
	// are left out. It is cheap: no disk is walked, and nobody but the kernel is asked.
	Usage(ctx context.Context, ids ...ID) (map[ID]Usage, error)
	// Ping tells whether the engine answers.
	Ping(ctx context.Context) error
}

// File is a file of a container.
type File interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// Log is a log that is being read. Close may be called at any time, also while Next waits.
type Log interface {
	// Next returns the next line, or io.EOF. Its text is valid until the next call.
	Next() (Line, error)
	Close() error
}

// Line is a line of a log.
type Line struct {
	At     time.Time
	Source string // who wrote it: APP/PROC/WEB, HEALTH, ...
	Stream step.Stream
	Text   []byte // without its end; at most MaxLine bytes
}

// MaxLine is the longest line of a log, in bytes; longer ones are split between characters.
const MaxLine = 61_440

// Spec says what to make.
type Spec struct {
	ID     ID
	Labels map[string]string // written on the container; each at most 4,096 bytes with its key
	RootFS string            // URL: docker://, oci-archive://, oci-layout://, preloaded:
	// Username and Password are for the registry.
	Username, Password string
	// Program is what runs. The environment of the image comes before its Env, and the user of the
	// image is that of processes that name none.
	Program step.Program
	// AddressEnv names a variable that holds the address of the container for all processes; empty: none.
	AddressEnv string
	Limits     Limits
	Ports      []Port
	Mounts     []Mount // made in this order
	Privileged bool
	// Egress says what the container may reach besides what the cell lets every container reach. A rule
	// that means nothing fails Create, whose error names the field.
	Egress []lrp.EgressRule
	// Network is what plugins of the cell's network are told about the container.
	Network map[string]string
}

// Delivery is the answer to a transfer.
type Delivery struct {
	Archive string // path of a plain tar file on the cell, for a download
	Size    int64  // bytes that were moved
	Cached  bool   // the network was not needed
	Error   string // why it failed, for people; empty: it did not
}

// Limits bound a container. 0 means no limit.
type Limits struct {
	MemoryMB int32
	DiskMB   int32
	// MaxPids bounds the processes and threads of the program; those of the engine's own do not count.
	MaxPids int32
	// CPUWeight is the share under contention in percent of the largest share; 0 counts as 1.
	CPUWeight uint32
}

// Port maps a container port to a port of the cell.
type Port struct {
	Container, Host uint16
}

// Container is what an engine knows of a container.
type Container struct {
	ID        ID
	Labels    map[string]string
	Status    Status
	Exit      Exit   // when Status is Exited
	Address   string // IP address of the container; empty while half-made
	Ports     []Port
	CreatedAt time.Time
}

// Status is how far a container is.
type Status string

// The statuses.
const (
	Partial Status = "partial" // half-made by a call that never returned: only good to destroy
	Created Status = "created"
	Running Status = "running"
	Exited  Status = "exited"
)

// Exit says how a program ended.
type Exit struct {
	Code      int // 128+n when ended by signal n
	OOMKilled bool
	At        time.Time
	Result    *step.Result // nil: it was ended before it could tell
}

// What can go wrong in a way that callers tell apart; the text of the wrapping error says which
// image, user, path or directory, and what to do.
var (
	// ErrNotFound: there is no such container.
	ErrNotFound = errors.New("container not found")
	// ErrExists: there is one with that ID.
	ErrExists = errors.New("container exists")
	// ErrImage: the image cannot be had: missing, refused, corrupt, or not for this platform.
	ErrImage = errors.New("image cannot be used")
	// ErrAway: the engine did not answer; of Create and Start, whether they did anything is unknown.
	ErrAway = errors.New("container engine does not answer")
	// ErrNoSpace: a disk of the cell is full.
	ErrNoSpace = errors.New("no space left on the cell")
)
