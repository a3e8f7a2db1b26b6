package guest

import (
	"os"
	"strconv"
	"strings"
)

// oomFiles are where a container sees how often the kernel has killed something in it for want of
// memory: with cgroup v2, and with v1.
var oomFiles = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}

// oomKills returns that number; 0 where it cannot be seen.
func oomKills() int {
	for _, name := range oomFiles {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "oom_kill" {
				count, _ := strconv.Atoi(fields[1])
				return count
			}
		}
	}
	return 0
}
