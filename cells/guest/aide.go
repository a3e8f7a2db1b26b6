package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"muster/cells/guest/internal/helper"
)

const (
	// self is the program of the init, the same even when the file of it was replaced.
	self = "/proc/self/exe"
	// maxReply bounds what a helper says is wrong, in bytes.
	maxReply = 4096
)

// aide is a helper at work.
type aide struct {
	child *child
	reply *os.File
}

// ask makes a helper do what order says. The files become its files from 4 on.
func (h *host) ask(verb helper.Verb, order helper.Order, files ...int) (*aide, error) {
	paper, err := write(order)
	if err != nil {
		return nil, err
	}
	defer unix.Close(paper)
	var reply [2]int
	if err := unix.Pipe2(reply[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer unix.Close(reply[1])
	attr := &syscall.ProcAttr{Env: helperEnv(verb), Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, fd := range append([]int{h.null, h.null, reply[1], paper}, files...) {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	c, err := h.children.start(self, []string{"muster-init", string(verb)}, attr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a process: %w", err), unix.Close(reply[0]))
	}
	if err := unix.SetNonblock(reply[0], true); err != nil {
		c.signal(syscall.SIGKILL)
		return nil, errors.Join(err, unix.Close(reply[0]))
	}
	return &aide{c, os.NewFile(uintptr(reply[0]), "reply")}, nil
}

// helperEnv are the variables of a helper: few threads, so that it can be made where there are few left, and no
// collection of garbage in one that is about to become another program.
func helperEnv(verb helper.Verb) []string {
	env := []string{"GOMAXPROCS=1"}
	if verb == helper.Exec {
		env = append(env, "GOGC=off")
	}
	return env
}

// write writes an order into a file without a name.
func write(order helper.Order) (int, error) {
	text, err := json.Marshal(order)
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("order", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a file in memory: %w", err)
	}
	for at := 0; at < len(text); {
		n, err := unix.Pwrite(fd, text[at:], int64(at))
		if err != nil {
			return -1, errors.Join(fmt.Errorf("write to a file in memory: %w", err), unix.Close(fd))
		}
		at += n
	}
	return fd, nil
}

// said returns what the helper says, when it has nothing to add: it has ended, or become a program.
func (a *aide) said() string {
	text, _ := io.ReadAll(io.LimitReader(a.reply, maxReply))
	_ = a.reply.Close()
	return string(text)
}

// finish waits for the end of a helper that answers with its status; what it says then is an error.
func (a *aide) finish() error {
	said := a.said()
	<-a.child.ended
	switch {
	case a.child.code() == 0:
		return nil
	case said == "" || a.child.status.Signaled():
		return fmt.Errorf("the process that did it ended with status %d", a.child.code())
	}
	return errors.New(said)
}
