package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// forwarding is the switch that lets packets of containers leave the machine; CNI's bridge turns it on.
const forwarding = "/proc/sys/net/ipv4/ip_forward"

// Host is what the host was like before the first Up, for what a Down must put back.
type Host struct {
	Forwarding bool `json:"forwarding"`
}

func lookAtHost() (*Host, error) {
	text, err := os.ReadFile(forwarding)
	if err != nil {
		return nil, fmt.Errorf("look whether the host forwards packets: %w", err)
	}
	return &Host{Forwarding: strings.TrimSpace(string(text)) == "1"}, nil
}

// restoreHost puts back what Up changed and no cell owns.
func (s *Stack) restoreHost() ([]string, error) {
	if s.Host == nil || s.Host.Forwarding {
		return nil, nil
	}
	if text, err := os.ReadFile(forwarding); err != nil || strings.TrimSpace(string(text)) != "1" {
		return nil, nil
	}
	if others := otherBridges(s.Name); len(others) > 0 {
		return []string{"left ip_forward on for " + strings.Join(others, " ")}, nil
	}
	if err := os.WriteFile(forwarding, []byte("0\n"), 0o644); err != nil {
		return nil, fmt.Errorf("turn forwarding off again: %w", err)
	}
	return []string{"ip_forward"}, nil
}

// bridgeName is the bridge of a cell.
func (s *Stack) bridgeName(i int) string { return fmt.Sprintf("%s%d", s.Name, i) }

// otherBridges lists bridges that are not ours: whoever made them may need forwarding too.
func otherBridges(name string) []string {
	found, err := filepath.Glob("/sys/class/net/*/bridge")
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range found {
		dev := filepath.Base(filepath.Dir(f))
		if rest, ok := strings.CutPrefix(dev, name); ok && strings.Trim(rest, "0123456789") == "" {
			continue
		}
		out = append(out, dev)
	}
	return out
}

// unmountBelow unmounts everything mounted below a directory, the deepest first.
func unmountBelow(dir string) ([]string, error) {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	return mounts, errors.Join(errs...)
}

// mountsBelow lists the mounts below a directory, the deepest first.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if m := unescape.Replace(f[4]); strings.HasPrefix(m, dir+"/") {
			out = append(out, m)
		}
	}
	sort.Slice(out, func(i, j int) bool { return len(out[i]) > len(out[j]) })
	return out, nil
}

// remains lists what of a stack is still on the machine.
func (s *Stack) remains(ctx context.Context) []string {
	var out []string
	if found, err := find(s.StateDir); err == nil {
		for part, list := range found {
			for _, p := range list {
				out = append(out, fmt.Sprintf("process %d (%s)", p.PID, part))
			}
		}
	}
	if mounts, err := mountsBelow(s.StateDir); err == nil {
		for _, m := range mounts {
			out = append(out, "mount "+m)
		}
	}
	for i := 1; i <= Cells; i++ {
		if _, err := net.InterfaceByName(s.bridgeName(i)); err == nil {
			out = append(out, "bridge "+s.bridgeName(i))
		}
	}
	if groups, err := filepath.Glob("/sys/fs/cgroup/*/" + s.Name); err == nil {
		for _, g := range groups {
			out = append(out, "cgroup "+g)
		}
	}
	if text, err := exec.CommandContext(ctx, "iptables-save", "-t", "nat").Output(); err == nil {
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, s.Subnets+".") && slices.ContainsFunc(s.subnets(), func(n string) bool { return strings.Contains(line, strings.TrimSuffix(n, "0/24")) }) {
				out = append(out, "iptables rule "+strings.TrimSpace(line))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (s *Stack) subnets() []string {
	var out []string
	for i := 1; i <= Cells; i++ {
		out = append(out, s.subnet(i))
	}
	return out
}

func (s *Stack) subnet(i int) string { return fmt.Sprintf("%s.%d.0/24", s.Subnets, i) }
