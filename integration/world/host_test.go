package world

import (
	"fmt"
	"muster/cells/firewall/nft"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// host is everything on a machine that a stack could leave behind, one line each.
type host map[string]bool

// lookAtHost lists processes, mounts, network devices and namespaces, rules, cgroups and switches
// that have to do with stacks. Chance processes of others are left out: a process counts when its
// environment or command line names the state directory, or its cgroup the stack.
func (s *stack) lookAtHost(t *testing.T) host {
	t.Helper()
	h := host{}
	add := func(kind, format string, args ...any) { h[kind+" "+fmt.Sprintf(format, args...)] = true }
	for _, p := range glob(t, "/proc/[0-9]*") {
		for _, f := range []string{"cmdline", "environ", "cgroup"} {
			text, err := os.ReadFile(filepath.Join(p, f))
			if err == nil && (strings.Contains(string(text), s.dir) || strings.Contains(string(text), "/"+stackName+"/")) {
				cmd, _ := os.ReadFile(filepath.Join(p, "cmdline")) // gone meanwhile: then it is not left behind
				add("process", "%s %q", filepath.Base(p), strings.Split(string(cmd), "\x00"))
			}
		}
	}
	for line := range lines(t, "/proc/self/mountinfo") {
		if f := strings.Fields(line); strings.Contains(f[4], s.dir) || strings.Contains(line, stackName) {
			add("mount", "%s", f[4])
		}
	}
	for _, dev := range glob(t, "/sys/class/net/*") {
		add("device", "%s", filepath.Base(dev))
	}
	for _, ns := range glob(t, "/run/netns/*") {
		add("namespace", "%s", ns)
	}
	for _, group := range slices.Concat(glob(t, "/sys/fs/cgroup/*/"+stackName+"*"), glob(t, "/sys/fs/cgroup/"+stackName+"*")) {
		add("cgroup", "%s", group)
	}
	for _, table := range []string{"nat", "filter", "mangle", "raw"} {
		out, err := exec.Command("iptables-save", "-t", table).Output()
		if err != nil {
			t.Fatalf("list rules: %v", err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":CNI") {
				rule, _, _ := strings.Cut(line, " [")
				add("rule", "%s: %s", table, strings.TrimSpace(rule))
			}
		}
	}
	tables, err := nft.Tables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if strings.Contains(table, stackName) {
			add("table", "%s", table)
		}
	}
	for _, name := range []string{"ip_forward"} {
		for line := range lines(t, "/proc/sys/net/ipv4/"+name) {
			add("switch", "%s=%s", name, strings.TrimSpace(line))
		}
	}
	for _, dir := range slices.Concat(glob(t, "/run/containerd/*"), glob(t, "/var/lib/cni/*"), glob(t, "/run/cni/*"), glob(t, "/var/lib/cni/*/*")) {
		add("file", "%s", dir)
	}
	return h
}

// more lists what is in h but was not before.
func (h host) more(before host) []string {
	var found []string
	for line := range h {
		if !before[line] {
			found = append(found, line)
		}
	}
	slices.Sort(found)
	return found
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func lines(t *testing.T, name string) func(func(string) bool) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Lines(string(text))
}
