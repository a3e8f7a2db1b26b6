// Package helper is what an init does in a process of its own, which it makes by executing itself: it
// starts programs, extracts archives and opens files as one of the users of the container. So nothing but
// the kernel says what that user may do, and whatever the container's files hold, the init does not
// read it.
//
// A helper is given, by the numbers of its files:
//
//	0  /dev/null
//	2  where it says what is wrong, and, for Exec, that it is about to execute: see Going
//	3  its Order, as JSON
//	4  Exec: the standard output of the program; Untar: the archive; Read and Stat: where the answer goes
//	5  Exec: the standard error of the program
package helper

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"muster/bbs/lrp"
)

// Verb is what a helper does; the first argument of its command line.
type Verb string

// The verbs.
const (
	Exec  Verb = "exec"  // executes a program
	Untar Verb = "untar" // extracts an archive
	Read  Verb = "read"  // copies a file
	Stat  Verb = "stat"  // describes a file: see Description
)

// Known tells whether there is a verb of that name.
func (v Verb) Known() bool { return v == Exec || v == Untar || v == Read || v == Stat }

// Order says what a helper is to do.
type Order struct {
	User string // name or uid[:gid]; empty: root
	// Dir is where the program runs (empty: the home of the user) or the archive goes; made when missing.
	// As Path of a file, it starts in the home of the user unless it is absolute; that of a program must be.
	Dir       string
	Path      string // of the program, or of the file
	Args, Env []string
	Nofile    uint64     // most open files of the program
	Files     []lrp.File // to be there before the program is
	Limit     int64      // most bytes to read
}

// Description is the answer to Stat.
type Description struct {
	Size int64
	Path string // without links
}

// The files of a helper.
const (
	orderFile = 3
	dataFile  = 4
	errFile   = 5
)

// Going is what Exec says before it executes the program: what follows it is why that failed, and
// where nothing does, the program runs.
const Going = '+'

// maxOrder bounds an order, in bytes.
const maxOrder = 64 << 20

// Main does what the verb and the order say; the result is the exit status.
func Main(verb Verb) int {
	runtime.LockOSThread()
	reply, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, errFile+1)
	if err != nil {
		return 1
	}
	for _, fd := range []int{orderFile, dataFile, errFile} {
		unix.CloseOnExec(fd)
	}
	syscall.Umask(0o022)
	// What the cell protects is the init, not what it starts.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
	out := os.NewFile(uintptr(reply), "reply")
	if err := serve(verb, out); err != nil {
		fmt.Fprint(out, err)
		return 1
	}
	return 0
}

func serve(verb Verb, reply io.Writer) error {
	text, err := io.ReadAll(io.LimitReader(os.NewFile(orderFile, "order"), maxOrder))
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	var o Order
	if err := json.Unmarshal(text, &o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	who, err := lookUp(o.User)
	if err != nil {
		return err
	}
	switch verb {
	case Exec:
		return execute(o, who, reply)
	case Untar:
		return untar(o, who)
	case Read, Stat:
		return read(verb, o, who)
	}
	return fmt.Errorf("helper %s: no such verb", strconv.Quote(string(verb)))
}
