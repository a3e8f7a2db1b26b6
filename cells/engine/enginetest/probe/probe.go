// Package probe is the program that the conformance suite runs in containers. It is one Go function, so
// that an engine without real processes runs the very same.
package probe

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Process is what the function knows of its process.
type Process struct {
	Args           []string // without the program
	Signals        <-chan syscall.Signal
	Killed         <-chan struct{} // never closed where SIGKILL is real
	Stdout, Stderr io.Writer
	WriteFile      func(path string, content []byte) error
	ReadFile       func(path string) ([]byte, error)
	// Use says what the process takes, where nobody measures it; nil elsewhere.
	Use func(cpu time.Duration, memory int64)
	// Self describes the process; nil where there is no real one.
	Self func() Description
}

// Description is what the command describe prints, as JSON.
type Description struct {
	UID, GID int
	Groups   []int
	Dir      string
	DirUID   uint32 // owner of Dir
	Hostname string
	Env      []string
	Nofile   uint64
	CapEff   string // of /proc/self/status
	CapAmb   string
	CapInh   string
	CapBnd   string
	Seccomp  string
}

// usage is the exit code for arguments that make no sense.
const usage = 64

// Run does what the first argument says and returns the exit code:
//
//	exit N          ends with code N
//	say OUT ERR     writes OUT to stdout and ERR to stderr, a line each, and ends with 0
//	run             writes "ready", then ends with 3 on SIGTERM after writing "stopping"
//	stubborn        writes "ready", then "ignored" for every signal; only SIGKILL ends it
//	tick            writes "ready", then "tick N" every 20 ms, and ends with 0 on SIGTERM
//	write FILE TEXT writes TEXT into FILE and ends with 0
//	cat FILE        writes the content of FILE to stdout and ends with 0
//	describe        writes a Description and ends with 0
//	serve PORT      answers HTTP with "hello" until SIGTERM; writes "ready" when it listens
//	ask PORT        like serve, but answers "open" if a TCP connection to the address in the query can be made, else why not
//	eat MB          takes so much memory, writes "full" and ends with 0
//	hold MB FILE    takes so much memory and processor time for it, writes as much into FILE, writes "ready", and
//	                runs until SIGTERM
//	flood MB        writes so much to stdout in numbered lines, then "ready", and runs until SIGTERM
func Run(p Process) int {
	if len(p.Args) == 0 {
		return usage
	}
	command, rest := p.Args[0], p.Args[1:]
	switch {
	case command == "exit" && len(rest) == 1:
		return number(rest[0])
	case command == "say" && len(rest) == 2:
		fmt.Fprintln(p.Stdout, rest[0])
		fmt.Fprintln(p.Stderr, rest[1])
		return 0
	case command == "run":
		fmt.Fprintln(p.Stdout, "ready")
		return p.untilTerm("stopping", 3)
	case command == "stubborn":
		return p.stubborn()
	case command == "tick":
		return p.tick()
	case command == "write" && len(rest) == 2:
		return p.done(p.WriteFile(rest[0], []byte(rest[1])))
	case command == "cat" && len(rest) == 1:
		content, err := p.ReadFile(rest[0])
		fmt.Fprintf(p.Stdout, "%s", content)
		return p.done(err)
	case command == "describe" && p.Self != nil:
		_ = json.NewEncoder(p.Stdout).Encode(p.Self())
		return 0
	case command == "serve" && len(rest) == 1:
		return p.serve(rest[0], func(*http.Request) string { return "hello" })
	case command == "ask" && len(rest) == 1:
		return p.serve(rest[0], dial)
	case command == "eat" && len(rest) == 1:
		return p.eat(number(rest[0]))
	case command == "hold" && len(rest) == 2:
		return p.hold(number(rest[0]), rest[1])
	case command == "flood" && len(rest) == 1:
		return p.flood(number(rest[0]))
	}
	fmt.Fprintf(p.Stderr, "no such command: %q\n", p.Args)
	return usage
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return usage
	}
	return n
}

// untilTerm waits for SIGTERM.
func (p Process) untilTerm(last string, code int) int {
	for {
		select {
		case s := <-p.Signals:
			if s == syscall.SIGTERM {
				fmt.Fprintln(p.Stdout, last)
				return code
			}
		case <-p.Killed:
			return code
		}
	}
}

func (p Process) stubborn() int {
	fmt.Fprintln(p.Stdout, "ready")
	for {
		select {
		case <-p.Signals:
			fmt.Fprintln(p.Stdout, "ignored")
		case <-p.Killed:
			return 0
		}
	}
}

// done is the end of a command that may have failed.
func (p Process) done(err error) int {
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	return 0
}

// tickEvery is the pause between two ticks.
const tickEvery = 20 * time.Millisecond

func (p Process) tick() int {
	fmt.Fprintln(p.Stdout, "ready")
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for n := 1; ; {
		select {
		case s := <-p.Signals:
			if s == syscall.SIGTERM {
				return 0
			}
		case <-p.Killed:
			return 0
		case <-ticker.C:
			fmt.Fprintln(p.Stdout, "tick", n)
			n++
		}
	}
}

func (p Process) serve(port string, answer func(*http.Request) string) int {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	defer listener.Close()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, answer(r)) }))
	fmt.Fprintln(p.Stdout, "ready")
	return p.untilTerm("stopping", 0)
}

// dialTimeout is how long an answer may take: a packet that is dropped has none.
const dialTimeout = 2 * time.Second

// dial tries to connect to the address in the query.
func dial(r *http.Request) string {
	conn, err := net.DialTimeout("tcp", r.URL.RawQuery, dialTimeout)
	if err != nil {
		return err.Error()
	}
	conn.Close()
	return "open"
}

func (p Process) eat(megabytes int) int {
	memory := make([]byte, megabytes<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	fmt.Fprintln(p.Stdout, "full", memory[len(memory)-1])
	return 0
}

func (p Process) hold(megabytes int, file string) int {
	memory := make([]byte, megabytes<<20)
	began := time.Now()
	for i := range memory {
		memory[i] = byte(i)
	}
	if p.Use != nil {
		p.Use(max(time.Since(began), 1), int64(len(memory)))
	}
	if err := p.WriteFile(file, memory); err != nil {
		return p.done(err)
	}
	fmt.Fprintln(p.Stdout, "ready")
	code := p.untilTerm("stopping", 0)
	runtime.KeepAlive(memory)
	return code
}

func (p Process) flood(megabytes int) int {
	for written, line := 0, 0; written < megabytes<<20; line++ {
		n, err := fmt.Fprintf(p.Stdout, "line %08d of many, made long enough that there are not too many of them\n", line)
		if err != nil {
			return 1
		}
		written += n
	}
	fmt.Fprintln(p.Stdout, "ready")
	return p.untilTerm("stopping", 0)
}
