package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pumpBytes is how much output is read at once.
	pumpBytes = 16 << 10
	// drainWait bounds how long the end of a process waits for its output to be read, when the log is slow.
	drainWait = time.Second
)

// pump reads one output of a process until nobody holds it open any more.
type pump struct {
	from *os.File
	to   io.Writer
	rest func() // says that what was written so far ends here

	once    sync.Once
	drained chan struct{} // closed when all was read that had been written when drain was called
}

// newPump returns a pump, and the end of the pipe that is for the process.
func newPump(to io.Writer, rest func()) (*pump, int, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, -1, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return &pump{from: os.NewFile(uintptr(fds[0]), "output"), to: to, rest: rest, drained: make(chan struct{})}, fds[1], nil
}

// run reads until the end.
func (p *pump) run() {
	buf := make([]byte, pumpBytes)
	for {
		n, err := p.from.Read(buf)
		if n > 0 {
			_, _ = p.to.Write(buf[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.Join(p.from.SetReadDeadline(time.Time{}), p.readPresent(buf))
			p.settle()
		}
		if err != nil {
			p.settle()
			_ = p.from.Close()
			return
		}
	}
}

// settle says that all was read that there is for now.
func (p *pump) settle() {
	p.once.Do(func() {
		p.rest()
		close(p.drained)
	})
	p.rest()
}

// readPresent reads what is in the pipe, without waiting for more: a child of the process may write on.
func (p *pump) readPresent(buf []byte) error {
	raw, err := p.from.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		for err == nil && left > 0 {
			var n int
			if n, err = unix.Read(int(fd), buf[:min(left, len(buf))]); n <= 0 {
				break
			}
			left -= n
			_, _ = p.to.Write(buf[:n])
		}
		return true
	})
}

// drain makes a pump read what there is now, and waits for that until ctx ends.
func (p *pump) drain(ctx context.Context) {
	_ = p.from.SetReadDeadline(time.Unix(1, 0)) // wakes it up; one that has ended needs no waking
	select {
	case <-p.drained:
	case <-ctx.Done():
	}
}
