package stack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// portTaken says that a port is in use by somebody else.
type portTaken struct {
	Name  string // of the port in our table
	Port  int
	Owner string // "PID (COMMAND)", empty when it cannot be found out
}

// Error says who has the port and how to choose another.
func (p *portTaken) Error() string {
	owner := p.Owner
	if owner == "" {
		owner = "another process"
	}
	return fmt.Sprintf("port %d (%s) is taken by %s: stop that, or choose another port: muster up %s", p.Port, p.Name, owner, portFlag(p.Name))
}

// checkFree reports every one of the ports that is taken.
func (s *Stack) checkFree(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := checkFree(name, s.Ports[name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// settleTime is how long a port may look taken without an owner: a child between fork and exec still
// holds what its parent had open.
const settleTime = 200 * time.Millisecond

func checkFree(name string, port int) error {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(probeEvery) {
		err := tryPort(name, port)
		var taken *portTaken
		if !errors.As(err, &taken) || taken.Owner != "" || time.Now().After(deadline) {
			return err
		}
	}
}

func tryPort(name string, port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err == nil {
		return l.Close()
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("port %d (%s): %w: choose another: muster up %s", port, name, err, portFlag(name))
	}
	return &portTaken{name, port, owner(port)}
}

// owner says which process listens on a port.
func owner(port int) string {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if inode, ok := listener(line, port); ok {
				inodes["socket:["+inode+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && inodes[target] {
			pid := strings.Split(link, "/")[2]
			return fmt.Sprintf("process %s (%s)", pid, command(pid))
		}
	}
	return ""
}

// listener reads a line of /proc/net/tcp: the inode of the socket, if it listens on port.
func listener(line string, port int) (string, bool) {
	const listening = "0A"
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != listening {
		return "", false
	}
	_, hexPort, _ := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(hexPort)
	if err != nil || len(raw) != 2 || int(raw[0])<<8|int(raw[1]) != port {
		return "", false
	}
	return f[9], true
}

// command returns the command line of a process, cut to what fits in a message.
func command(pid string) string {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil || len(text) == 0 {
		return "unknown"
	}
	const longest = 80
	line := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' ' // between arguments, and whatever else would not stay on a line
		}
		return r
	}, string(text)))
	if len(line) > longest {
		line = line[:longest] + "…"
	}
	return line
}
