// Command probe is the program of the conformance suite as a real process.
package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"

	"muster/cells/engine/enginetest/probe"
)

func main() {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	signals := make(chan syscall.Signal)
	go func() {
		for s := range caught {
			signals <- s.(syscall.Signal)
		}
	}()
	os.Exit(probe.Run(probe.Process{
		Args: os.Args[1:], Signals: signals, Stdout: os.Stdout, Stderr: os.Stderr, Self: describe, ReadFile: os.ReadFile,
		WriteFile: func(path string, content []byte) error { return os.WriteFile(path, content, 0o644) },
	}))
}

func describe() probe.Description {
	d := probe.Description{UID: os.Getuid(), GID: os.Getgid(), Env: os.Environ()}
	d.Groups, _ = os.Getgroups()
	d.Dir, _ = os.Getwd()
	d.Hostname, _ = os.Hostname()
	var stat syscall.Stat_t
	if syscall.Stat(d.Dir, &stat) == nil {
		d.DirUID = stat.Uid
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		d.Nofile = limit.Max
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "CapEff":
			d.CapEff = value
		case "CapAmb":
			d.CapAmb = value
		case "CapInh":
			d.CapInh = value
		case "CapBnd":
			d.CapBnd = value
		case "Seccomp":
			d.Seccomp = value
		}
	}
	return d
}
