package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

// Program is one of our programs as a process.
type Program struct {
	name   string // of its binary
	binary string
	config string
	log    string
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
}

// program returns the n-th process of a program, which was never started.
func (r *Rig) program(name string, n int) Program {
	file := filepath.Join(r.dir, fmt.Sprintf("%s%d", name, n))
	return Program{name: name, binary: filepath.Join(r.bin, name), config: file + ".yml", log: file + ".log"}
}

// configure writes the configuration.
func (p *Program) configure(settings map[string]any) error {
	config, err := yaml.Marshal(settings)
	if err != nil {
		return err
	}
	return os.WriteFile(p.config, config, 0o600)
}

// Start starts the process, which has ended or was never started.
func (p *Program) Start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.binary, "-config", p.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the bench is not one of the program
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }() // how it ended is in its log
	p.cmd, p.ended = cmd, ended
	return nil
}

// Log returns what the program has logged.
func (p *Program) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// Stop ends the process in an orderly way, or kills it if that takes too long.
func (p *Program) Stop() error {
	return p.signal(syscall.SIGTERM)
}

// Kill ends the process at once.
func (p *Program) Kill() error { return p.signal(syscall.SIGKILL) }

// signal signals the process and waits for its end.
func (p *Program) signal(sig os.Signal) error {
	if p.cmd == nil {
		return nil // it never started
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTime):
		p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s did not stop within %v; its log:\n%s", p.name, stopTime, p.Log())
	}
}

// MaxRSS returns the most memory that the program has had resident so far, in MB.
func (p *Program) MaxRSS() (int, error) { return Peak(p.cmd.Process.Pid) }

// CPU returns the processor time that the process has taken so far.
func (p *Program) CPU() time.Duration { return cpu(p.cmd.Process.Pid, false) }

// cpu returns the processor time of a process, or of those of its children that have ended; 0 when it is
// gone.
func cpu(pid int, ended bool) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may contain anything.
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	times := f[11:13]
	if ended {
		times = f[13:15]
	}
	var ticks int64
	for _, s := range times { // user and system, in hundredths of a second
		n, _ := strconv.ParseInt(s, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
