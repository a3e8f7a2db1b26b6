package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// Usage reads the accounts that the kernel keeps of each container's cgroup; of the disk it tells what was last
// measured (see watchDisks).
func (e *Engine) Usage(ctx context.Context, ids ...engine.ID) (map[engine.ID]engine.Usage, error) {
	kernel := accounts{root: cgroupRoot, unified: unified()}
	all := make(map[engine.ID]engine.Usage, len(ids))
	var errs []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		u, err := kernel.of(e.cgroup(id))
		switch {
		case errors.Is(err, fs.ErrNotExist): // half-made, or gone
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("usage of container %s: %w", id, err))
			continue
		}
		if info, err := os.Stat(e.paths.file(id, logFile)); err == nil {
			u.LogBytes = info.Size()
		}
		layer := e.disks.of(id)
		u.DiskBytes, u.DiskAt = layer.bytes, layer.at
		all[id] = u
	}
	return all, errors.Join(errs...)
}

// accounts are those that the kernel keeps of cgroups.
type accounts struct {
	root    string // where they are mounted
	unified bool   // cgroup v2
	buffer  []byte // of maxAccount bytes, for one file at a time
}

// maxAccount bounds one file of an account, in bytes; the longest have less than 2,000.
const maxAccount = 8192

// of reads the account of a cgroup and all below it.
func (a *accounts) of(path string) (engine.Usage, error) {
	if a.unified {
		return a.v2(path)
	}
	return a.v1(path)
}

// v1 reads three of the hierarchies. Memory is counted as Diego does: rss, cache and swap without inactive files.
func (a *accounts) v1(path string) (u engine.Usage, err error) {
	memory, err := a.table("memory", path, "memory.stat")
	if err != nil {
		return u, err
	}
	u.MemoryBytes = atLeast0(memory.sum("total_rss", "total_cache", "total_swap") - memory.sum("total_inactive_file"))
	cpu, err := a.number("cpuacct", path, "cpuacct.usage")
	if err != nil {
		return u, err
	}
	u.CPU = time.Duration(cpu)
	u.Pids, err = a.number("pids", path, "pids.current")
	return u, err
}

// v2 reads the one hierarchy. Memory is counted as Diego does: file, anon and swapcached without inactive files.
func (a *accounts) v2(path string) (u engine.Usage, err error) {
	memory, err := a.table(path, "memory.stat")
	if err != nil {
		return u, err
	}
	u.MemoryBytes = atLeast0(memory.sum("file", "anon", "swapcached") - memory.sum("inactive_file"))
	cpu, err := a.table(path, "cpu.stat")
	if err != nil {
		return u, err
	}
	u.CPU = time.Duration(cpu.sum("usage_usec")) * time.Microsecond
	u.Pids, err = a.number(path, "pids.current")
	return u, err
}

// atLeast0 makes up for numbers that were not read at the same moment.
func atLeast0(n int64) int64 { return max(n, 0) }

// number reads a file that holds one.
func (a *accounts) number(path ...string) (int64, error) {
	text, err := a.read(path...)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path[len(path)-1], err)
	}
	return n, nil
}

// table reads a file of lines with a name and a number each. It is valid until the next call.
func (a *accounts) table(path ...string) (table, error) { return a.read(path...) }

// read reads a file up to the size of the buffer, which no account reaches. It costs three system calls; package os
// makes more, to find out how large the file is and whether it can be waited for.
func (a *accounts) read(path ...string) ([]byte, error) {
	fd, err := unix.Open(filepath.Join(append([]string{a.root}, path...)...), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if a.buffer == nil {
		a.buffer = make([]byte, maxAccount)
	}
	for n := 0; ; {
		more, err := unix.Read(fd, a.buffer[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENODEV): // removed meanwhile
			return nil, fs.ErrNotExist
		case err != nil:
			return nil, err
		}
		if n += more; more == 0 || n == len(a.buffer) || a.buffer[n-1] == '\n' {
			return a.buffer[:n], nil
		}
	}
}

// table is the text of such a file. It is searched, not parsed: of some forty lines four are wanted.
type table []byte

// sum adds the numbers of some lines; a line that is not there counts 0: older kernels have fewer.
func (t table) sum(names ...string) (sum int64) {
	for line := range bytes.Lines(t) {
		for _, name := range names {
			rest, ok := bytes.CutPrefix(line, []byte(name))
			if !ok || len(rest) == 0 || rest[0] != ' ' {
				continue
			}
			if n, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64); err == nil {
				sum += n
			}
		}
	}
	return sum
}
