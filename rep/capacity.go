package rep

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"

	"muster/cells"
)

// capacity returns what the cell hands out.
func (c *Config) capacity() (cells.Resources, error) {
	r := cells.Resources{Containers: c.MaxContainers}
	var err error
	if c.MemoryMB == auto {
		r.MemoryMB, err = machineMemoryMB()
	} else {
		r.MemoryMB, err = amount(c.MemoryMB)
	}
	if err != nil {
		return r, fmt.Errorf("memory_mb: %w", err)
	}
	if c.DiskMB == auto {
		r.DiskMB, err = fileSystemMB(c.DiskPath)
	} else {
		r.DiskMB, err = amount(c.DiskMB)
	}
	if err != nil {
		return r, fmt.Errorf("disk_mb: %w", err)
	}
	return r, nil
}

func machineMemoryMB() (int32, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("find out the memory of the machine: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			var kib int64
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("find out the memory of the machine: MemTotal is %q: %w", rest, err)
			}
			return mib(uint64(kib) << 10), nil
		}
	}
	return 0, fmt.Errorf("find out the memory of the machine: no MemTotal in /proc/meminfo: set a number")
}

func fileSystemMB(path string) (int32, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("find out the size of the file system of disk_path %s: %w", path, err)
	}
	return mib(st.Blocks * uint64(st.Bsize)), nil
}

func mib(bytes uint64) int32 { return int32(min(bytes>>20, math.MaxInt32)) }
