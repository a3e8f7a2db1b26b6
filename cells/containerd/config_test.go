package containerd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestConfigurationTellsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	bad := Config{
		Address: "x", Namespace: "a b", StateDir: "relative", ImageDir: "relative", CgroupParent: "/", Bridge: strings.Repeat("b", 16),
		Subnet: "10.0.0.1/24", DNS: []string{"ns.example"}, CNIBinDir: "/nowhere", InitPath: "relative", LogLimitBytes: 1,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, field := range []string{
		"address", "namespace", "state_dir", "image_dir", "snapshotter", "runtime", "cgroup_parent", "bridge", "subnet", "dns", "cni_bin_dir", "init_path", "log_limit_bytes",
	} {
		if !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%s is not named in: %v", field, err)
		}
	}
	good := Defaults()
	good.Namespace, good.StateDir, good.CgroupParent, good.Bridge, good.Subnet = "muster-cell-1", "/var/lib/x", "/muster/cell-1", "muster1", "10.254.1.0/24"
	good.InitPath = initPath
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

// Two engines for one state directory: the second is told so, until the first is closed.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	cfg := Defaults()
	cfg.Namespace, cfg.StateDir, cfg.CgroupParent, cfg.Bridge, cfg.Subnet = "muster-cell-1", t.TempDir(), "/muster/cell-1", "muster1", "10.254.1.0/24"
	cfg.InitPath = "/no/such/init"
	none, err := New(cfg)
	check(t, err)
	if err := none.Own(); err == nil || !strings.Contains(err.Error(), "init_path") {
		t.Errorf("got %v, want one that names init_path", err)
	}
	check(t, none.Close())
	cfg.InitPath = initPath
	first, err := New(cfg)
	check(t, err)
	check(t, first.Own())
	second, err := New(cfg)
	check(t, err)
	if err := second.Own(); err == nil || !strings.Contains(err.Error(), cfg.StateDir) || !strings.Contains(err.Error(), "state_dir of its own") {
		t.Errorf("got %v", err)
	}
	check(t, first.Close())
	check(t, second.Own())
	check(t, second.Close())
}

// A plugin that a killed caller left at work is waited for, once; our own are not.
func TestStrayPluginsAreWaitedFor(t *testing.T) {
	t.Parallel()
	cfg := Defaults()
	cfg.StateDir, cfg.Namespace, cfg.Subnet = t.TempDir(), "x", "10.0.0.0/24"
	n, err := newNetwork(cfg)
	check(t, err)
	env := append(os.Environ(), "CNI_NETNS="+n.paths.netns("x"))
	ours := exec.Command("sleep", "1000")
	ours.Env = env
	check(t, ours.Start())
	t.Cleanup(func() { _, _ = ours.Process.Kill(), ours.Wait() })
	shell := exec.Command("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!") // what it starts is nobody's child when it ends
	shell.Env = env
	text, err := shell.Output()
	check(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	check(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })

	short, cancel := context.WithTimeout(t.Context(), 3*strayPause)
	defer cancel()
	if err := n.settle(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("got %v, want one that names process %d", err, pid)
	}
	settled := make(chan error, 1)
	go func() { settled <- n.settle(t.Context()) }()
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	check(t, <-settled)
}
