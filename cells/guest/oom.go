package guest

import (
	"bytes"
	"os"
	"strconv"
)

// oomFiles are where the kernel counts what it killed in a container for want of memory: with cgroup v2, and v1.
var oomFiles = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}

// oomKills returns how many processes of the container the kernel has killed for want of memory; 0 when that
// cannot be seen from inside.
func oomKills() int {
	for _, name := range oomFiles {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			if count, found := bytes.CutPrefix(line, []byte("oom_kill ")); found {
				n, _ := strconv.Atoi(string(bytes.TrimSpace(count)))
				return n
			}
		}
	}
	return 0
}
