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
)

// ID identifies a container: letters, digits and -, at most 64 characters.
type ID string

// Engine makes and destroys containers. All methods may be called concurrently; calls for one
// container are made one after another by its owner, except Wait, Kill and Logs.
type Engine interface {
	// Create makes a container: its image is fetched and unpacked, its network and ports are set
	// up, its process is not yet running. On an error nothing of it is left.
	Create(ctx context.Context, spec Spec) (Container, error)
	// Start runs the process of a created container.
	Start(ctx context.Context, id ID) error
	// Wait returns when the process of a started container has ended, how it ended. It works for
	// containers of an earlier life of the caller, and may be called more than once.
	Wait(ctx context.Context, id ID) (Exit, error)
	// Kill signals the process. A process that has ended is no error.
	Kill(ctx context.Context, id ID, signal syscall.Signal) error
	// Destroy removes a container in any state and all that belongs to it. One that does not
	// exist is no error. On an error it can be called again.
	Destroy(ctx context.Context, id ID) error
	// List returns all containers of this engine's owner, half-made ones included.
	List(ctx context.Context) ([]Container, error)
	// Logs returns what the process wrote on one stream so far, and with follow also what it goes
	// on to write until the container is destroyed or ctx ends. Output is kept from the first
	// start of the process on, through restarts of the caller, up to the engine's limit.
	Logs(ctx context.Context, id ID, stream Stream, follow bool) (io.ReadCloser, error)
	// Ping tells whether the engine answers.
	Ping(ctx context.Context) error
}

// Spec says what to make.
type Spec struct {
	ID     ID
	Labels map[string]string // written on the container; each at most 4,096 bytes with its key
	RootFS string            // URL: docker://, oci-archive://, oci-layout://, preloaded:
	// Username and Password are for the registry.
	Username, Password string
	Process            Process
	Limits             Limits
	Ports              []Port
	Privileged         bool
}

// Process is what runs in a container.
type Process struct {
	Path   string   // looked up in the PATH of Env when it holds no slash
	Args   []string // without the program
	Env    []string // NAME=value; later ones win; added to those of the image
	Dir    string   // empty: the home of the user; made when missing
	User   string   // name or uid[:gid] in the container; empty: that of the image
	Nofile uint64   // 0: the engine's default
}

// Limits bound a container. 0 means no limit.
type Limits struct {
	MemoryMB int32
	DiskMB   int32
	MaxPids  int32
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

// Exit says how a process ended.
type Exit struct {
	Code      int // 128+n when ended by signal n
	OOMKilled bool
	At        time.Time
}

// Stream is one of the two outputs of a process.
type Stream int

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

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
	// ErrProcess: the process cannot be started: no such program, user or directory.
	ErrProcess = errors.New("process cannot be started")
)
