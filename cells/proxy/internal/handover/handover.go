// Package handover passes open files from one process to its successor over a Unix socket of packets: a packet
// for each file, with its name, and an empty one at the end. The successor answers with one packet when it
// uses them.
package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Network is the kind of socket.
const Network = "unixpacket"

const (
	maxName = 512     // maxName bounds the name of a file, in bytes.
	maxOpen = 1 << 20 // maxOpen bounds the files of one handover.
)

// ready is what the successor says, end what comes after the last file.
var ready, end = []byte("ready"), []byte{0}

// Send passes a file on.
func Send(c *net.UnixConn, name string, f syscallConn) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("hand over %.80q: want a name of 1 to %d bytes", name, maxName)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("hand over %s: %w", name, err)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) {
		_, _, sent = c.WriteMsgUnix([]byte(name), unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return fmt.Errorf("hand over %s: %w", name, err)
	}
	if sent != nil {
		return fmt.Errorf("hand over %s: %w", name, sent)
	}
	return nil
}

// End says that this was all, and waits until the successor is ready.
func End(c *net.UnixConn, within time.Duration) error {
	if _, err := c.Write(end); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	answer := make([]byte, len(ready)+1)
	n, err := c.Read(answer)
	if err != nil {
		return fmt.Errorf("hand over: no word of the successor: %w", err)
	}
	if string(answer[:n]) != string(ready) {
		return errors.New("hand over: the successor says something unknown")
	}
	return nil
}

// Receive takes all files, by their names. The caller closes them.
func Receive(c *net.UnixConn, within time.Duration) (files map[string]*os.File, err error) {
	files = map[string]*os.File{}
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	name, rights := make([]byte, maxName), make([]byte, unix.CmsgSpace(4))
	for range maxOpen {
		n, rn, _, _, err := c.ReadMsgUnix(name, rights)
		if err != nil {
			return nil, fmt.Errorf("take over: %w", err)
		}
		if string(name[:n]) == string(end) {
			return files, nil
		}
		f, err := fileOf(string(name[:n]), rights[:rn])
		if err != nil {
			return nil, err
		}
		files[f.Name()] = f
	}
	return nil, fmt.Errorf("take over: more than %d files", maxOpen)
}

func fileOf(name string, rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("take over %q: no file comes with it", name)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("take over %q: no file comes with it", name)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), name), nil
}

// Confirm says that the files are in use.
func Confirm(c *net.UnixConn) error {
	if _, err := c.Write(ready); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	return nil
}

// syscallConn is what has a file descriptor.
type syscallConn interface {
	SyscallConn() (syscall.RawConn, error)
}
