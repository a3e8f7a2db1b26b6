package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// settle waits, once, for CNI plugins that an earlier life of the caller left at work when it was
// killed: what they are about to make would stay for good if it was undone before it is there.
func (n *network) settle(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.settled {
		return nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, process := range processes {
		for n.isStrayPlugin(process) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for a CNI plugin of an earlier life, process %s: %w", filepath.Base(process), ctx.Err())
			case <-time.After(strayPause):
			}
		}
	}
	n.settled = true
	return nil
}

// isStrayPlugin tells whether a process is a plugin at work for a container of the cell, or what such
// a one started, and is not our child.
func (n *network) isStrayPlugin(process string) bool {
	env, err := os.ReadFile(filepath.Join(process, "environ"))
	if err != nil {
		return false // gone; that of a process which ended and is not collected is empty
	}
	ours := fmt.Sprintf("PPid:\t%d\n", os.Getpid())
	status, err := os.ReadFile(filepath.Join(process, "status"))
	return err == nil && strings.Contains(string(env), "CNI_NETNS="+n.paths.netnsDir()+"/") && !strings.Contains(string(status), ours)
}
