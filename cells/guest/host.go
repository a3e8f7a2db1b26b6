package guest

import (
	"fmt"
	"math"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"muster/cells/step"
)

// host is what the program of a container runs on: a step.Host.
type host struct {
	program  step.Program
	children *reaper
	log      *journal
	events   *events
	inbox    *inbox
	null     int // /dev/null
	pumps    sync.WaitGroup
}

func newHost(dir string) (*host, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	_ = unix.CloseRange(0, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // also what the init was started with
	return &host{
		children: &reaper{children: map[int]*child{}},
		log:      &journal{out: newWriter(logFile, logPatience)},
		events:   newEvents(),
		inbox:    newInbox(filepath.Join(dir, "inbox")),
		null:     null,
	}, nil
}

// Log writes a line of the cell to the log.
func (h *host) Log(source string, stream step.Stream, line string) {
	defer h.guard()
	h.log.line(source, stream, line)
}

// Tell tells what happened.
func (h *host) Tell(e step.Event) {
	defer h.guard()
	h.events.tell(e)
}
